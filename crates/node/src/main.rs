//! The storage node: hosts Raft partitions and serves the Node, peer and driver protocols.

fn main() {}

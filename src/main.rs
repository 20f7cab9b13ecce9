//! Wires the operator together.

fn main() {}

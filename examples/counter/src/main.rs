//! A sample application that counts through its runtime sidecar.

fn main() {}

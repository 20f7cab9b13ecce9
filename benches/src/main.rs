//! Benchmark programs that report.

fn main() {}

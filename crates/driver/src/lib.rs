//! Drivers: the trait, and the built-in multi-raft and memory drivers.

//! The volumes of a Store: which grow and which go, and the calls that make it so.

pub mod claims;
pub mod disks;

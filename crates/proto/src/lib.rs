//! The protocol buffers of Atomix as Rust types and gRPC services, generated from `proto/`.
//!
//! Not for behaviour: only the digests that both ends of a protocol must compute alike live here.

#![allow(missing_docs, reason = "the documentation is in proto/")]

#[allow(
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated code"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/include.rs"));
}

pub mod digest;
pub mod kinds;
#[cfg(test)]
mod wire;

pub use generated::atomix::{multiraft, operator, runtime};

/// The encoded `FileDescriptorSet` of everything here, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

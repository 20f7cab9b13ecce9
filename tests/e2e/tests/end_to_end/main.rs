//! The whole story on a real cluster: real pods, disks, network and API server.

mod bad_input;
mod faults;
mod story;

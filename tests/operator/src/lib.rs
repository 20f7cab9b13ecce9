//! The operator against a real API server with real node and runtime processes.
//!
//! No kubelet starts what these tests make: the pods ask for a machine that does not exist, and the
//! [`pod_runner`] does a kubelet's work with processes on loopback addresses of their own. They need
//! a control plane only. A scheduler would call the pods unschedulable, beside what the tests write.
//!
//! Not for what needs containers, DNS or kubelets; that is tested end to end, in `tests/e2e`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "this crate is a test harness"
)]

pub mod addresses;
pub mod api_server;
pub mod claims;
pub mod counter;
pub mod crds;
pub mod deployed;
pub mod end_state;
pub mod fault;
pub mod forwarder;
pub mod frozen;
pub mod groups;
pub mod http;
pub mod identity;
pub mod invariants;
pub mod issuer;
pub mod load;
pub mod matrix;
pub mod mounts;
pub mod namespace;
pub mod observer;
pub mod operator_under_test;
pub mod pod_process;
pub mod pod_runner;
pub mod pod_status;
pub mod probe;
pub mod processes;
pub mod resources;
pub mod runtime_pods;
pub mod samples;
pub mod schema;
pub mod supervised;
pub mod test_bed;
pub mod uninstaller;
pub mod uninstalling;
pub mod wait;
pub mod webhook;
pub mod workload;

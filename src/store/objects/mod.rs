//! The Kubernetes objects of a Store: built from the specification alone, applied where they differ.

pub mod apply;
pub mod budget;
pub mod build;
pub mod heal;
mod network_policy;
mod pod_template;
pub mod pods;
pub mod tls;

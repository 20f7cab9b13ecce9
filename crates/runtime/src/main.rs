//! The runtime sidecar: control API, routing and the application API.

fn main() {}

//! The operator against a real API server with real node and runtime processes.

//! What a Store asks for: its specification, checked and with defaults, and the configuration that its
//! driver gets. Pure, but for Secrets and ConfigMaps that the configuration names.

pub mod config_from;
pub mod driver_config;
pub mod driver_timeouts;
pub mod quantity;
pub mod validate;

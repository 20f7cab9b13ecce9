//! The application API: all kinds of primitives, served generically from their encoded requests.

mod codec;
mod connections;
pub(crate) mod kinds;
mod service;

pub(crate) use connections::{Closed, Owners, accept};
pub(crate) use service::ApplicationService;

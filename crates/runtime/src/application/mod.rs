//! The application API: all kinds of primitives, served generically from their encoded requests.

pub(crate) mod calls;
mod codec;
mod connections;
mod service;

pub(crate) use connections::{Closed, Owners, accept};
pub(crate) use service::ApplicationService;

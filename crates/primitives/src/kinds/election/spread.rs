//! What the streams of the kind `election` consist of.

use atomix_proto::runtime::election::v1::WatchRequest;
use bytes::Bytes;

use crate::error::OperationError;
use crate::spread::streaming::{Streaming, anywhere, event_in_1};
use crate::spread::{Spread, decode};

use super::Election;

impl Spread for Election {
    fn streaming(method: &str, request: &Bytes) -> Result<Option<Streaming>, OperationError> {
        match method {
            "Watch" => {
                let WatchRequest { id: _ } = decode(request)?;
                Ok(Some(Streaming::entries(true, anywhere, event_in_1)))
            }
            _ => Ok(None),
        }
    }
}

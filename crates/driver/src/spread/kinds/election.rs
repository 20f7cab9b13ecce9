//! `election`.

use atomix_proto::runtime::election::v1::WatchRequest;
use bytes::Bytes;

use super::super::plan::decode;
use super::super::stream::{Listing, Streaming};
use crate::error::DriverError;

pub(super) fn streaming(method: &str, request: &Bytes) -> Result<Option<Streaming>, DriverError> {
    match method {
        "Watch" => {
            let WatchRequest { id: _ } = decode(request)?;
            Ok(Some(Streaming {
                key: None,
                greeting: None,
                listing: Some(Listing {
                    entry: super::entry_in_1,
                    nothing: None,
                    place: super::anywhere,
                }),
                follows: true,
                change: super::event_in_1,
            }))
        }
        _ => Ok(None),
    }
}

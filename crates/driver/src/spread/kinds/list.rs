//! `list`.
//!
//! All pages of a list are of one state of it: a list that changes while it is read ends the stream
//! with ABORTED.

use atomix_proto::multiraft::v1::Event;
use atomix_proto::runtime::list::v1::{
    self as list, EventsRequest, EventsResponse, Item, ItemsRequest, ItemsResponse, event,
};
use bytes::Bytes;
use prost::{DecodeError, Message as _};

use super::super::plan::decode;
use super::super::stream::{Listing, Streaming};
use crate::error::DriverError;

pub(super) fn streaming(method: &str, request: &Bytes) -> Result<Option<Streaming>, DriverError> {
    match method {
        "Events" => {
            let EventsRequest { id: _, replay } = decode(request)?;
            let greeting = EventsResponse {
                event: Some(list::Event::default()),
            };
            let greeting = greeting.encode_to_vec().into();
            let events = super::events(String::new(), greeting, super::event_in_1);
            let replayed = Listing {
                entry: appended,
                nothing: None,
                place: super::anywhere,
            };
            Ok(Some(Streaming {
                listing: replay.then_some(replayed),
                ..events
            }))
        }
        "Items" => {
            let ItemsRequest { id: _, watch } = decode(request)?;
            Ok(Some(Streaming {
                key: None,
                greeting: None,
                listing: Some(Listing {
                    entry: super::entry_in_1,
                    nothing: None,
                    place: super::anywhere,
                }),
                follows: watch,
                change,
            }))
        }
        _ => Ok(None),
    }
}

/// An item that was there before, as if it had just been appended.
fn appended(item: Bytes) -> Result<Bytes, DecodeError> {
    let Item { index, value } = Item::decode(item)?;
    let event = Some(list::Event {
        index,
        event: Some(event::Event::Appended(event::Appended { value })),
    });
    Ok(EventsResponse { event }.encode_to_vec().into())
}

fn change(event: &Event) -> Result<Bytes, DecodeError> {
    let list::Event { index, event } = list::Event::decode(event.payload.clone())?;
    let removed = matches!(event, Some(event::Event::Removed(_)));
    let value = match event {
        Some(event::Event::Appended(appended)) => appended.value,
        Some(event::Event::Inserted(inserted)) => inserted.value,
        Some(event::Event::Updated(updated)) => updated.value,
        Some(event::Event::Removed(removed)) => removed.value,
        None => None,
    };
    let item = Some(Item { index, value });
    Ok(ItemsResponse { item, removed }.encode_to_vec().into())
}

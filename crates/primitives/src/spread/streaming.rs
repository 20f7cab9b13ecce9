//! What streams consist of: first what a primitive holds, page by page, then what happens to it.
//!
//! Messages are made of what pages and events have, without knowing how far a stream is: that is the
//! reader's.

use atomix_proto::multiraft::v1::Event;
use bytes::{Bytes, BytesMut};
use prost::DecodeError;
use prost::encoding::{WireType, encode_key, encode_varint};

/// A message for an event, or for an entry of a page.
type Message = Result<Bytes, DecodeError>;

/// What a streaming RPC consists of.
pub struct Streaming {
    /// Only what happens to this key.
    pub key: Option<Bytes>,
    /// Sent before everything else.
    pub greeting: Option<Bytes>,
    /// What the primitive holds comes first.
    pub listing: Option<Listing>,
    /// What happens afterwards is told too.
    pub follows: bool,
    /// The message that tells of an event.
    pub change: fn(&Event) -> Message,
}

/// How a primitive's pages are told.
pub struct Listing {
    /// The message of an entry.
    pub entry: fn(Bytes) -> Message,
    /// What is sent when the primitive holds nothing.
    pub nothing: Option<Bytes>,
    /// Where what an event is about stands in the order of the pages, as their `next` says it.
    pub place: fn(&Event) -> Message,
}

impl Streaming {
    /// The stream `Events`: first a message without an event, which existing clients wait for; then
    /// the kind's own events.
    pub(crate) fn events(key: String, greeting: Bytes, change: fn(&Event) -> Message) -> Self {
        Self {
            key: (!key.is_empty()).then(|| key.into()),
            greeting: Some(greeting),
            listing: None,
            follows: true,
            change,
        }
    }

    /// What the primitive holds, each entry in field 1; then, if it follows, what happens.
    pub(crate) fn entries(
        follows: bool,
        place: fn(&Event) -> Message,
        change: fn(&Event) -> Message,
    ) -> Self {
        Self {
            key: None,
            greeting: None,
            listing: Some(Listing {
                entry: entry_in_1,
                nothing: None,
                place,
            }),
            follows,
            change,
        }
    }
}

/// A message of a single field that holds this message.
fn wrapped(tag: u32, message: &[u8]) -> Bytes {
    let mut wrapped = BytesMut::with_capacity(message.len() + 12);
    encode_key(tag, WireType::LengthDelimited, &mut wrapped);
    encode_varint(message.len() as u64, &mut wrapped);
    wrapped.extend_from_slice(message);
    wrapped.freeze()
}

/// The event as field 1.
pub(crate) fn event_in_1(event: &Event) -> Message {
    Ok(wrapped(1, &event.payload))
}

/// The event as field 2.
pub(crate) fn event_in_2(event: &Event) -> Message {
    Ok(wrapped(2, &event.payload))
}

/// The entry, element or item as field 1.
pub(crate) fn entry_in_1(entry: Bytes) -> Message {
    Ok(wrapped(1, &entry))
}

/// Pages are in the order of keys.
pub(crate) fn key_of(event: &Event) -> Message {
    Ok(event.key.clone())
}

/// There is one page, or all pages are of one state.
pub(crate) fn anywhere(_event: &Event) -> Message {
    Ok(Bytes::new())
}

//! What the pages that were read have already told, so that a stream that goes on with events tells
//! it neither twice nor not at all.

use atomix_proto::multiraft::v1::{EventPosition, Page};
use bytes::Bytes;

/// The pages of one partition, in their order.
#[derive(Debug, Default)]
pub(super) struct ReadPages(Vec<ReadPage>);

#[derive(Debug)]
struct ReadPage {
    /// The last place that it covers; `None` = to the end.
    through: Option<Bytes>,
    /// It has every change up to here.
    operation: u64,
}

impl ReadPages {
    pub(super) fn add(&mut self, page: &Page) {
        self.0.push(ReadPage {
            through: page.next.clone(),
            operation: page.operation,
        });
    }

    /// From where events are needed: nothing is missing in the first page up to here, and later
    /// pages have more.
    pub(super) fn position(&self) -> EventPosition {
        EventPosition {
            operation: self.0.first().map_or(0, |page| page.operation),
            ordinal: u32::MAX,
        }
    }

    /// Whether a page has the event at `position` that happened at `place`.
    pub(super) fn have(&self, place: &[u8], position: &EventPosition) -> bool {
        let covers = |page: &&ReadPage| page.through.as_ref().is_none_or(|last| place <= &**last);
        let page = self.0.iter().find(covers);
        page.is_some_and(|page| position.operation <= page.operation)
    }

    /// Forgets the pages when nothing that comes after `position` can be in them. A page has all
    /// events of its operation, of which a part may follow a position.
    pub(super) fn forget_before(&mut self, position: &EventPosition) {
        let is_past = |page: &ReadPage| {
            let end = (page.operation, u32::MAX);
            end <= (position.operation, position.ordinal)
        };
        if self.0.last().is_some_and(is_past) {
            self.0.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(next: Option<&'static str>, operation: u64) -> Page {
        Page {
            entries: Vec::new(),
            next: next.map(|next| Bytes::from_static(next.as_bytes())),
            operation,
        }
    }

    fn at(operation: u64) -> EventPosition {
        EventPosition {
            operation,
            ordinal: 0,
        }
    }

    #[test]
    fn an_event_is_in_the_page_that_covers_its_place_if_the_page_is_as_new() {
        let mut pages = ReadPages::default();
        assert!(!pages.have(b"a", &at(1)));
        pages.add(&page(Some("f"), 10));
        pages.add(&page(Some("m"), 20));
        pages.add(&page(None, 30));
        assert_eq!(
            pages.position(),
            EventPosition {
                operation: 10,
                ordinal: u32::MAX
            }
        );
        for (place, operation, is_in) in [
            ("a", 10, true),
            ("a", 11, false),
            ("f", 11, false),
            ("g", 11, true),
            ("m", 20, true),
            ("m", 21, false),
            ("n", 21, true),
            ("z", 30, true),
            ("z", 31, false),
        ] {
            assert_eq!(
                pages.have(place.as_bytes(), &at(operation)),
                is_in,
                "{place} {operation}"
            );
        }
        for position in [at(29), at(30)] {
            pages.forget_before(&position);
            assert!(pages.have(b"z", &at(30)));
        }
        pages.forget_before(&at(31));
        assert!(!pages.have(b"z", &at(30)));
    }
}

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use atomix_proto::multiraft::v1::{Page, PageRequest};
use atomix_proto::runtime::list::v1::*;
use proptest::prelude::*;
use prost::Message;

use crate::ErrorCode;
use crate::kinds::keyed::testing::{
    Fixture, edits, forged_snapshots_never_panic, replicas_agree, steps,
};

/// One change, as the tests name them.
#[derive(Clone, Debug)]
enum Change {
    Append(&'static str),
    Insert(u32, &'static str),
    Set(u32, &'static str),
    Remove(u32),
    Clear,
}

fn value(text: &str) -> Option<Value> {
    let value = text.to_owned().into();
    Some(Value { value })
}

impl Change {
    fn request(&self) -> (&'static str, Vec<u8>) {
        let id = None;
        match self {
            Change::Append(text) => {
                let value = value(text);
                ("Append", AppendRequest { id, value }.encode_to_vec())
            }
            Change::Insert(index, text) => {
                let (index, value) = (*index, value(text));
                ("Insert", InsertRequest { id, index, value }.encode_to_vec())
            }
            Change::Set(index, text) => {
                let (index, value) = (*index, value(text));
                ("Set", SetRequest { id, index, value }.encode_to_vec())
            }
            Change::Remove(index) => {
                let index = *index;
                ("Remove", RemoveRequest { id, index }.encode_to_vec())
            }
            Change::Clear => ("Clear", Vec::new()),
        }
    }

    /// Runs it; the item of the reply, if it has one.
    fn run(&self, list: &mut Fixture) -> Result<Option<Item>, ErrorCode> {
        let id = None;
        match self {
            Change::Append(text) => {
                let value = value(text);
                list.run::<AppendResponse>("Append", &AppendRequest { id, value })
                    .map(|_| None)
            }
            Change::Insert(index, text) => {
                let (index, value) = (*index, value(text));
                list.run::<InsertResponse>("Insert", &InsertRequest { id, index, value })
                    .map(|reply| reply.item)
            }
            Change::Set(index, text) => {
                let (index, value) = (*index, value(text));
                list.run::<SetResponse>("Set", &SetRequest { id, index, value })
                    .map(|reply| reply.item)
            }
            Change::Remove(index) => {
                let index = *index;
                list.run::<RemoveResponse>("Remove", &RemoveRequest { id, index })
                    .map(|reply| reply.item)
            }
            Change::Clear => list
                .run::<ClearResponse>("Clear", &ClearRequest { id })
                .map(|_| None),
        }
    }
}

fn fixture(texts: &[&'static str]) -> Fixture {
    let mut list = Fixture::new("list");
    for text in texts {
        Change::Append(text).run(&mut list).unwrap();
    }
    list.events::<Event>();
    list
}

fn text(value: Option<Value>) -> String {
    String::from_utf8(value.unwrap().value.to_vec()).unwrap()
}

fn texts(list: &Fixture) -> Vec<String> {
    let items = list.all::<Item>("Page");
    for (place, item) in items.iter().enumerate() {
        assert_eq!(item.index as usize, place);
    }
    items.into_iter().map(|item| text(item.value)).collect()
}

fn size(list: &Fixture) -> u32 {
    let reply: SizeResponse = list.ask("Size", &SizeRequest { id: None }).unwrap();
    reply.size
}

/// What a copy does that follows the events.
fn follow(copy: &mut Vec<String>, event: Event) {
    let index = event.index as usize;
    match event.event.unwrap() {
        event::Event::Appended(appended) => {
            assert_eq!(index, copy.len());
            copy.push(text(appended.value));
        }
        event::Event::Inserted(inserted) => copy.insert(index, text(inserted.value)),
        event::Event::Updated(updated) => {
            assert_eq!(copy[index], text(updated.prev_value));
            copy[index] = text(updated.value);
        }
        event::Event::Removed(removed) => assert_eq!(copy.remove(index), text(removed.value)),
    }
}

#[test]
fn each_change_does_what_it_says_within_the_list_and_nothing_beyond() {
    use Change::{Append, Clear, Insert, Remove, Set};
    let before = ["a", "b", "c"];
    // The change, the item it answers, the list afterwards; None = OUT_OF_RANGE.
    let table = [
        (Append("x"), Some(None), "abcx"),
        (Insert(0, "x"), Some(Some((0, "x"))), "xabc"),
        (Insert(2, "x"), Some(Some((2, "x"))), "abxc"),
        (Insert(3, "x"), Some(Some((3, "x"))), "abcx"),
        (Insert(4, "x"), None, "abc"),
        (Insert(u32::MAX, "x"), None, "abc"),
        (Set(0, "x"), Some(Some((0, "x"))), "xbc"),
        (Set(2, "x"), Some(Some((2, "x"))), "abx"),
        (Set(3, "x"), None, "abc"),
        (Remove(0), Some(Some((0, "a"))), "bc"),
        (Remove(2), Some(Some((2, "c"))), "ab"),
        (Remove(3), None, "abc"),
        (Remove(u32::MAX), None, "abc"),
        (Clear, Some(None), ""),
    ];
    for (change, answer, after) in table {
        let mut list = fixture(&before);
        let item = |(index, text): (u32, &str)| Item {
            index,
            value: value(text),
        };
        let expected = answer
            .map(|answer| answer.map(item))
            .ok_or(ErrorCode::OutOfRange);
        assert_eq!(change.run(&mut list), expected, "{change:?}");
        assert_eq!(texts(&list).concat(), after, "{change:?}");
        assert_eq!(size(&list) as usize, after.len());
        let mut copy: Vec<String> = before.iter().map(ToString::to_string).collect();
        for event in list.events::<Event>() {
            follow(&mut copy, event);
        }
        assert_eq!(
            copy.concat(),
            after,
            "{change:?}: the events say something else"
        );
    }
}

#[test]
fn get_answers_within_the_list_and_an_empty_list_does_not_exist() {
    let mut list = fixture(&["a", "b"]);
    let get = |list: &Fixture, index| {
        list.ask::<GetResponse>("Get", &GetRequest { id: None, index })
            .map(|reply| text(reply.item.unwrap().value))
    };
    assert_eq!(get(&list, 1), Ok("b".to_owned()));
    assert_eq!(get(&list, 2), Err(ErrorCode::OutOfRange));
    Change::Clear.run(&mut list).unwrap();
    assert_eq!(get(&list, 0), Err(ErrorCode::OutOfRange));
    assert!(!list.exists());
    assert_eq!(list.machine.usage().primitives, 0);
    let missing = list.refused("Append", &AppendRequest::default());
    assert_eq!(missing.0, ErrorCode::InvalidArgument);
    assert!(missing.1.starts_with("value: "), "{}", missing.1);
}

#[test]
fn pages_are_of_one_state_of_the_list() {
    let mut list = fixture(&["a", "b", "c"]);
    assert_eq!(list.pages::<Item>("Page", 1).len(), 3);
    let page = |list: &Fixture, after| {
        let max_bytes = 1;
        list.ask::<Page>("Page", &PageRequest { after, max_bytes })
    };
    let next = page(&list, None).unwrap().next;
    // A change of another primitive, or a snapshot, is none of this list.
    list.restore();
    assert!(page(&list, next.clone()).is_ok());
    let frozen = list.machine.frozen();
    Change::Remove(0).run(&mut list).unwrap();
    assert_eq!(page(&list, next.clone()), Err(ErrorCode::Aborted));
    let changed = std::mem::replace(&mut list.machine, frozen);
    let items = page(&list, next.clone()).unwrap().entries;
    assert_eq!(text(Item::decode(&*items[0]).unwrap().value), "b");
    list.machine = changed;
    Change::Clear.run(&mut list).unwrap();
    assert_eq!(page(&list, next), Err(ErrorCode::Aborted));
    for bad in [&b""[..], b"12345678901", b"1234567890123"] {
        let after = Some(bad.into());
        assert_eq!(page(&list, after), Err(ErrorCode::InvalidArgument));
    }
}

fn change() -> impl Strategy<Value = Change> {
    let index = || prop_oneof![9 => 0_u32..6, 1 => any::<u32>()];
    let text = || proptest::sample::select(vec!["a", "b", ""]);
    prop_oneof![
        4 => text().prop_map(Change::Append),
        3 => (index(), text()).prop_map(|(index, text)| Change::Insert(index, text)),
        2 => (index(), text()).prop_map(|(index, text)| Change::Set(index, text)),
        3 => index().prop_map(Change::Remove),
        1 => Just(Change::Clear),
    ]
}

proptest! {
    #[test]
    fn replicas_agree_whatever_they_are_asked(steps in steps("list", prop_oneof![
        8 => change().prop_map(|change| change.request()),
        1 => proptest::sample::select(vec!["Size", "Get", "Page"])
            .prop_map(|method| (method, Vec::new())),
    ])) {
        replicas_agree(&steps);
    }

    #[test]
    fn a_forged_section_never_panics(steps in steps("list", prop_oneof![
        8 => change().prop_map(|change| change.request()),
        1 => proptest::sample::select(vec!["Size", "Get", "Page"])
            .prop_map(|method| (method, Vec::new())),
    ]), edits in edits()) {
        forged_snapshots_never_panic(&steps, &edits)?;
    }

    #[test]
    fn a_copy_that_follows_the_events_is_the_list(
        changes in proptest::collection::vec(change(), 1..60),
    ) {
        let mut list = fixture(&[]);
        let mut copy = Vec::new();
        for change in changes {
            let _answer = change.run(&mut list);
            for event in list.events::<Event>() {
                follow(&mut copy, event);
            }
            prop_assert_eq!(&texts(&list), &copy, "{:?}", change);
        }
    }
}

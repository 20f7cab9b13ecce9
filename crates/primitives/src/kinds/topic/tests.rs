#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use atomix_proto::multiraft::v1::Operation;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::tests::rules::{edits, forged_snapshots_never_panic, logs, replicas_agree};
use crate::tests::support::*;
use crate::{Access, EventPosition, Kinds, Outcome, SessionId};

fn publish_to(topic: &str, payload: &str) -> Operation {
    let payload = payload.to_owned().into();
    operation(
        "topic",
        topic,
        "Publish",
        0,
        &PublishRequest { id: None, payload },
    )
}

fn publish(payload: &str) -> Operation {
    publish_to("t", payload)
}

/// What a subscriber to the topic `t` gets from a position on.
fn messages(partition: &Partition, after: EventPosition) -> Vec<SubscribeResponse> {
    let events = partition.machine.events_after(after).unwrap();
    events
        .filter(|event| event.primitive.kind == "topic" && &*event.primitive.name == "t")
        .map(|event| SubscribeResponse::decode(event.payload.clone()).unwrap())
        .collect()
}

/// Publishes when the leader's clock shows this; what came out as a message.
fn publish_at(
    partition: &mut Partition,
    session: SessionId,
    wall_time_millis: u64,
) -> SubscribeResponse {
    partition.next_sequence += 1;
    let command = operate(session, partition.next_sequence, 0, publish("m"));
    let mut entry = batch(partition.time, vec![command]);
    entry.wall_time_millis = wall_time_millis;
    partition.index += 1;
    let applied = partition.machine.apply(partition.index, &entry);
    let [event] = &applied.events[..] else {
        panic!("there is not one message");
    };
    SubscribeResponse::decode(event.payload.clone()).unwrap()
}

#[test]
fn subscribers_get_each_message_once_in_order_with_offset_and_timestamp() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.run(session, publish("before")).unwrap();
    let position = partition.machine.event_position();
    for payload in ["a", "", "b"] {
        let reply = partition.run(session, publish(payload)).unwrap();
        assert_eq!(PublishResponse::decode(reply), Ok(PublishResponse {}));
        partition.run(session, publish_to("another", "x")).unwrap();
    }
    let timestamp = Some(Timestamp {
        seconds: 1_700_000_000,
        nanos: 0,
    });
    let expected: Vec<SubscribeResponse> = (2..)
        .zip(["a", "", "b"])
        .map(|(offset, payload)| SubscribeResponse {
            offset,
            timestamp,
            payload: payload.into(),
        })
        .collect();
    assert_eq!(messages(&partition, position), expected);
    assert_eq!(messages(&partition.restored(), position), expected);
}

#[test]
fn a_topic_keeps_its_offset_and_nothing_else() {
    let mut partition = Partition::new();
    let session = partition.open();
    assert_eq!(partition.machine.primitives().count(), 0);
    partition.run(session, publish("m")).unwrap();
    let before = partition.machine.usage().primitives;
    let long = "0123456789".repeat(1_000);
    partition.run(session, publish(&long)).unwrap();
    assert_eq!(partition.machine.usage().primitives, before);
    // The session that published it is gone, and so is the replica.
    partition.one(close(session));
    partition = partition.restored();
    assert_eq!(partition.machine.primitives().count(), 1);
    let position = partition.machine.event_position();
    let session = partition.open();
    partition.run(session, publish("m")).unwrap();
    assert_eq!(messages(&partition, position)[0].offset, 3);
}

#[test]
fn a_message_that_is_published_again_under_its_sequence_is_not_sent_again() {
    let mut partition = Partition::new();
    let session = partition.open();
    let position = partition.machine.event_position();
    let command = operate(session, 1, 0, publish("m"));
    let reply = partition.one(command.clone());
    assert!(matches!(reply, Outcome::Reply(Ok(_))));
    assert_eq!(partition.one(command), reply);
    assert_eq!(messages(&partition, position).len(), 1);
}

#[test]
fn timestamps_are_the_leaders_clock_and_always_ones_that_protobuf_allows() {
    let mut partition = Partition::new();
    let session = partition.open();
    let last = 253_402_300_799;
    let table = [
        (0, 0, 0),
        (1, 0, 1_000_000),
        (1_700_000_000_999, 1_700_000_000, 999_000_000),
        // It can go back.
        (5_000, 5, 0),
        (last * 1_000 + 999, 253_402_300_799, 999_000_000),
        (last * 1_000 + 1_000, 253_402_300_799, 999_999_999),
        (u64::MAX, 253_402_300_799, 999_999_999),
    ];
    for (offset, (millis, seconds, nanos)) in (1..).zip(table) {
        let message = publish_at(&mut partition, session, millis);
        assert_eq!(message.offset, offset);
        assert_eq!(message.timestamp, Some(Timestamp { seconds, nanos }));
    }
}

#[test]
fn a_topic_without_an_offset_left_refuses_instead_of_beginning_anew() {
    let last = Topic {
        offset: u64::MAX - 1,
    };
    assert_eq!(last.next_offset(), Ok(u64::MAX));
    let full = Topic { offset: u64::MAX };
    let refused = full.next_offset().unwrap_err();
    assert_eq!(refused.code, ErrorCode::OutOfRange);
}

#[test]
fn publish_is_a_write_and_garbage_is_invalid() {
    let kinds = Kinds::standard();
    assert_eq!(kinds.access(&publish("m")), Ok(Access::Write));
    let garbage = Operation {
        request: vec![0xff; 3].into(),
        ..publish("m")
    };
    let error = kinds.validate(&garbage).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArgument);
    let unknown = Operation {
        method: "Subscribe".to_owned(),
        ..publish("m")
    };
    let error = kinds.access(&unknown).unwrap_err();
    assert_eq!(error.code, ErrorCode::Unimplemented);
}

fn random_operation() -> impl Strategy<Value = Operation> {
    let topic = select(vec!["t", "u"]);
    (topic, "[ab]{0,3}").prop_map(|(topic, payload)| publish_to(topic, &payload))
}

proptest! {
    #[test]
    fn replicas_agree_over_any_log(log in logs(random_operation()), restore_at in 0_usize..60) {
        replicas_agree(&log, restore_at)?;
    }

    #[test]
    fn a_forged_section_never_panics(log in logs(random_operation()), edits in edits()) {
        forged_snapshots_never_panic(&log, &edits)?;
    }

    #[test]
    fn offsets_count_the_messages_of_their_topic(
        published in proptest::collection::vec((select(vec!["t", "u"]), "[ab]{0,3}"), 0..40),
    ) {
        let mut partition = Partition::new();
        let session = partition.open();
        let position = partition.machine.event_position();
        for (topic, payload) in &published {
            partition.run(session, publish_to(topic, payload)).unwrap();
            partition = partition.restored();
        }
        let expected: Vec<(u64, Bytes)> = (1..)
            .zip(published.iter().filter(|(topic, _)| *topic == "t"))
            .map(|(offset, (_, payload))| (offset, Bytes::from(payload.clone())))
            .collect();
        let got: Vec<(u64, Bytes)> = messages(&partition, position)
            .into_iter()
            .map(|message| (message.offset, message.payload))
            .collect();
        prop_assert_eq!(got, expected);
    }
}

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod model;

use std::time::Duration;

use atomix_proto::multiraft::v1::{Operation, command};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::tests::rules::{edits, forged_snapshots_never_panic, logs, replicas_agree};
use crate::tests::support::*;
use crate::{Access, Applied, ErrorCode, Event, Kinds, SessionId};

/// All requests but `GetTerm` look alike on the wire.
fn ask(method: &str, candidate: &str, owner: u64) -> Operation {
    let request = EnterRequest {
        id: None,
        candidate: candidate.to_owned(),
    };
    operation("election", "e", method, owner, &request)
}

fn enter(candidate: &str, owner: u64) -> Operation {
    ask("Enter", candidate, owner)
}

fn get_term() -> Operation {
    operation("election", "e", "GetTerm", 0, &GetTermRequest { id: None })
}

/// All replies look alike on the wire.
fn term_of(reply: Bytes) -> Term {
    EnterResponse::decode(reply).unwrap().term.unwrap()
}

fn term(partition: &Partition) -> Term {
    term_of(partition.machine.query(&get_term()).unwrap())
}

/// The leader and the line behind it, in one string.
fn line(partition: &Partition) -> String {
    let term = term(partition);
    let mut names = vec![term.leader];
    names.extend(term.candidates);
    names.concat()
}

fn terms(events: &[Event]) -> Vec<Term> {
    let terms = events
        .iter()
        .map(|event| Term::decode(event.payload.clone()));
    terms.map(Result::unwrap).collect()
}

/// An election with these candidates, each of an owner of its own, from 1.
fn election(candidates: &str) -> (Partition, SessionId) {
    let mut partition = Partition::new();
    let session = partition.open();
    for (owner, candidate) in (1..).zip(candidates.chars()) {
        let entering = enter(&candidate.to_string(), owner);
        partition.run(session, entering).unwrap();
    }
    (partition, session)
}

#[test]
fn each_method_does_what_it_says() {
    // The line before, the method, the candidate, the line afterwards.
    let table = [
        ("", "Enter", "a", "a"),
        ("a", "Enter", "b", "ab"),
        ("ab", "Enter", "a", "ab"),
        ("ab", "Enter", "b", "ab"),
        ("abc", "Withdraw", "a", "bc"),
        ("abc", "Withdraw", "b", "ac"),
        ("abc", "Withdraw", "c", "ab"),
        ("abc", "Withdraw", "x", "abc"),
        ("a", "Withdraw", "a", ""),
        ("", "Withdraw", "a", ""),
        ("abc", "Anoint", "a", "abc"),
        ("abc", "Anoint", "b", "bac"),
        ("abc", "Anoint", "c", "cab"),
        ("abc", "Anoint", "x", "abc"),
        ("", "Anoint", "a", ""),
        ("abc", "Promote", "a", "abc"),
        ("abc", "Promote", "b", "bac"),
        ("abc", "Promote", "c", "acb"),
        ("abc", "Promote", "x", "abc"),
        ("", "Promote", "a", ""),
        ("abc", "Demote", "a", "bca"),
        ("abc", "Demote", "b", "acb"),
        ("abc", "Demote", "c", "abc"),
        ("abc", "Demote", "x", "abc"),
        ("a", "Demote", "a", "a"),
        ("", "Demote", "a", ""),
        ("abc", "Evict", "a", "bc"),
        ("abc", "Evict", "b", "ac"),
        ("abc", "Evict", "x", "abc"),
        ("a", "Evict", "a", ""),
        ("", "Evict", "a", ""),
    ];
    for (before, method, candidate, after) in table {
        let case = format!("{method} {candidate} of {before:?}");
        let (mut partition, session) = election(before);
        let earlier = term(&partition);
        let counter = partition.machine.event_position().operation;
        let operate = operate(session, 1, 0, ask(method, candidate, 9));
        let applied = partition.apply(vec![operate]);
        let [crate::Outcome::Reply(Ok(reply))] = &applied.outcomes[..] else {
            panic!("{case} did not answer");
        };
        assert_eq!(line(&partition), after, "{case}");
        let later = term_of(reply.clone());
        if after.is_empty() {
            assert_eq!(term(&partition), Term::default(), "{case}");
            assert_eq!(partition.machine.primitives().count(), 0, "{case}");
        } else {
            assert_eq!(term(&partition), later, "{case}");
        }
        // The term is new if and only if another one leads.
        if before.chars().next() == after.chars().next() {
            assert_eq!(later.term, earlier.term, "{case}");
        } else {
            assert!(later.term > counter, "{case}");
        }
        // Watchers hear of each change and of nothing else.
        let told = terms(&applied.events);
        let expected = if before == after { vec![] } else { vec![later] };
        assert_eq!(told, expected, "{case}");
        assert_eq!(partition.restored().bytes(), partition.bytes(), "{case}");
    }
}

#[test]
fn a_candidate_needs_a_name_and_an_owner() {
    let kinds = Kinds::standard();
    for method in ["Enter", "Withdraw", "Anoint", "Promote", "Demote", "Evict"] {
        let error = kinds.validate(&ask(method, "", 1)).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument, "{method}");
        assert!(error.message.starts_with("candidate: "), "{method}");
        let garbage = Operation {
            request: vec![0xff; 3].into(),
            ..ask(method, "a", 1)
        };
        let error = kinds.validate(&garbage).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument, "{method}");
        assert_eq!(kinds.access(&ask(method, "a", 1)), Ok(Access::Write));
    }
    assert_eq!(kinds.access(&get_term()), Ok(Access::Read));
    let (mut partition, session) = election("a");
    let ownerless = partition.run(session, enter("b", 0));
    assert_eq!(code(&ownerless), Some(ErrorCode::InvalidArgument));
    assert_eq!(line(&partition), "a");
    // Whoever asks, only entering owns something.
    partition.run(session, ask("Withdraw", "a", 0)).unwrap();
    assert_eq!(line(&partition), "");
}

#[test]
fn a_candidate_stays_while_one_of_its_connections_does() {
    let (mut partition, session) = election("ab");
    // The application has connected anew before the first connection is released.
    partition.run(session, enter("a", 7)).unwrap();
    let before = term(&partition);
    let applied = partition.apply(vec![release_owner(session, 1)]);
    assert_eq!(applied.events, vec![]);
    assert_eq!(term(&partition), before);
    partition = partition.restored();
    partition.one(release_owner(session, 7));
    assert_eq!(line(&partition), "b");
    assert!(term(&partition).term > before.term);
}

#[test]
fn candidates_go_when_their_owner_or_session_ends() {
    type End = fn(SessionId) -> command::Command;
    let ends: [End; 3] = [
        |session| release_owner(session, 1),
        close,
        |session| expire(&[session]),
    ];
    for end in ends {
        let (mut partition, stays) = election("");
        let goes = partition.open();
        for (session, candidate, owner) in [
            (goes, "a", 1),
            (goes, "b", 1),
            (stays, "c", 1),
            (goes, "d", 1),
            (stays, "e", 2),
        ] {
            partition.run(session, enter(candidate, owner)).unwrap();
        }
        let before = term(&partition).term;
        let applied = partition.apply(vec![end(goes)]);
        assert_eq!(line(&partition), "ce");
        // One change, although two leaders of the line have gone.
        assert_eq!(terms(&applied.events), vec![term(&partition)]);
        assert!(term(&partition).term > before);
    }
}

#[test]
fn a_withdrawn_entry_takes_its_candidate_out_and_no_other_entry_does() {
    let (mut partition, session) = election("a");
    partition.one(operate(session, 1, 0, enter("b", 2)));
    // It has entered already: withdrawing this one takes nothing away.
    partition.one(operate(session, 2, 0, enter("b", 2)));
    partition.one(operate(session, 3, 0, ask("Promote", "b", 2)));
    for sequence in [2, 3] {
        let applied = partition.apply(vec![cancel(session, sequence)]);
        assert_eq!(applied.events, vec![]);
    }
    assert_eq!(line(&partition), "ba");
    let before = term(&partition).term;
    let applied = partition.apply(vec![cancel(session, 1)]);
    assert_eq!(line(&partition), "a");
    assert_eq!(terms(&applied.events), vec![term(&partition)]);
    assert!(term(&partition).term > before);
}

/// A deadline passed, and its withdrawal comes after the client has entered again.
#[test]
fn a_late_withdrawal_takes_nothing_from_an_owner_that_entered_again() {
    let (mut partition, session) = election("a");
    partition.one(operate(session, 1, 0, enter("b", 2)));
    partition.one(operate(session, 2, 0, enter("b", 2)));
    let applied = partition.apply(vec![cancel(session, 1)]);
    assert_eq!(applied.events, vec![]);
    partition = partition.restored();
    assert_eq!(line(&partition), "ab");
    partition.one(cancel(session, 2));
    assert_eq!(line(&partition), "a");
}

#[test]
fn entering_again_and_again_keeps_nothing_more_once_it_is_known() {
    let (mut partition, session) = election("a");
    partition.one(operate(session, 1, 0, enter("b", 2)));
    let bytes = partition.machine.usage().primitives;
    for sequence in 2..100 {
        partition.one(operate(session, sequence, sequence - 1, enter("b", 2)));
    }
    assert_eq!(partition.machine.usage().primitives, bytes);
    partition.one(cancel(session, 99));
    assert_eq!(line(&partition), "ab");
    partition.one(release_owner(session, 2));
    assert_eq!(line(&partition), "a");
}

/// A defect of the original: it made the last of the line the leader, and lost the former one.
#[test]
fn anoint_makes_exactly_the_named_candidate_the_leader() {
    let (mut partition, session) = election("abcde");
    partition.run(session, ask("Anoint", "c", 1)).unwrap();
    assert_eq!(line(&partition), "cabde");
}

/// A defect of the original.
#[test]
fn demote_moves_the_candidate_to_the_end_also_the_leader() {
    let (mut partition, session) = election("abc");
    let before = term(&partition).term;
    partition.run(session, ask("Demote", "b", 1)).unwrap();
    assert_eq!(line(&partition), "acb");
    assert_eq!(term(&partition).term, before);
    partition.run(session, ask("Demote", "a", 1)).unwrap();
    assert_eq!(line(&partition), "cba");
    assert!(term(&partition).term > before);
}

/// A defect of the original: it looked for the caller's session among the leaders only.
#[test]
fn withdraw_works_for_a_candidate_that_does_not_lead() {
    let (mut partition, session) = election("abc");
    let before = term(&partition).term;
    partition.run(session, ask("Withdraw", "b", 2)).unwrap();
    assert_eq!(line(&partition), "ac");
    assert_eq!(term(&partition).term, before);
}

/// A defect of the original.
#[test]
fn the_end_of_a_lone_leaders_session_is_a_new_term() {
    let (mut partition, session) = election("a");
    let before = term(&partition).term;
    let applied = partition.apply(vec![expire(&[session])]);
    let told = terms(&applied.events);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].leader, "");
    assert!(told[0].term > before);
    assert_eq!(partition.machine.primitives().count(), 0);
    let next = partition.open();
    let entered = term_of(partition.run(next, enter("b", 1)).unwrap());
    assert!(entered.term > told[0].term);
}

/// A defect of the original: it watched the session of the leader alone.
#[test]
fn a_candidate_that_does_not_lead_goes_with_its_session_too() {
    let (mut partition, one) = election("a");
    let two = partition.open();
    partition.run(two, enter("b", 1)).unwrap();
    partition.one(close(two));
    assert_eq!(line(&partition), "a");
    partition.one(close(one));
    assert_eq!(line(&partition), "");
}

/// A defect of the original.
#[test]
fn two_clients_in_one_pod_are_two_owners() {
    let (mut partition, session) = election("ab");
    partition.one(release_owner(session, 2));
    assert_eq!(line(&partition), "a");
}

#[test]
fn bytes_count_candidates_with_their_names_and_connections() {
    let (mut partition, session) = election("a");
    let bytes = |partition: &Partition| partition.machine.usage().primitives;
    let one = bytes(&partition);
    partition.run(session, enter("0123456789", 2)).unwrap();
    let two = bytes(&partition);
    let name = "0123456789".repeat(2);
    partition.run(session, enter(&name, 2)).unwrap();
    assert_eq!(bytes(&partition) - two, two - one + 10);
    partition.run(session, enter("a", 3)).unwrap();
    let three = bytes(&partition);
    assert_eq!(bytes(&partition.restored()), three);
    partition.one(release_owner(session, 3));
    assert!(bytes(&partition) < three);
    // Moving takes nothing away, and leaving everything that entering brought.
    for method in ["Anoint", "Demote", "Promote"] {
        let before = bytes(&partition);
        partition.run(session, ask(method, &name, 2)).unwrap();
        assert_eq!(bytes(&partition), before, "{method}");
    }
    partition.run(session, ask("Evict", &name, 1)).unwrap();
    assert_eq!(bytes(&partition), two);
    partition.run(session, ask("Withdraw", "a", 1)).unwrap();
    assert_eq!(bytes(&partition), one + 9);
    partition.one(close(session));
    assert_eq!(bytes(&partition), 0);
}

fn name() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "b", "c", "d", ""])
}

fn method() -> impl Strategy<Value = &'static str> {
    select(vec![
        "Enter", "Enter", "Enter", "Withdraw", "Anoint", "Promote", "Demote", "Evict",
    ])
}

fn random_operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        9 => (method(), name(), 0_u64..4)
            .prop_map(|(method, name, owner)| ask(method, name, owner)),
        1 => Just(get_term()),
    ]
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
}

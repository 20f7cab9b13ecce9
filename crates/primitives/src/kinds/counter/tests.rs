#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::sync::Arc;
use std::time::Duration;

use atomix_proto::multiraft::v1::{
    Command, CommandBatch, OpenSession, Operate, Operation, command,
};
use atomix_proto::runtime::counter::v1::GetResponse;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::{Access, Kinds, Outcome, SessionId, StateMachine};

/// One counter in a real state machine.
struct Fixture {
    machine: StateMachine,
    session: SessionId,
    index: u64,
}

impl Fixture {
    fn new() -> Self {
        let mut machine = StateMachine::new(Arc::new(Kinds::standard()));
        let open = command::Command::OpenSession(OpenSession {
            timeout_nanos: u64::try_from(Duration::from_secs(30).as_nanos()).unwrap(),
            client: "a test".to_owned(),
        });
        let opened = machine.apply(1, &entry(open));
        let [Outcome::Session(session)] = opened.outcomes[..] else {
            panic!("no session was opened");
        };
        let index = 1;
        Self {
            machine,
            session,
            index,
        }
    }

    fn run(&mut self, request: Request) -> Result<i64, ErrorCode> {
        self.index += 1;
        let operate = command::Command::Operate(Operate {
            session: self.session.0,
            sequence: self.index,
            acknowledged: self.index - 1,
            operation: Some(operation(request)),
            open: Vec::new(),
        });
        let applied = self.machine.apply(self.index, &entry(operate));
        assert_eq!(applied.events, vec![]);
        let [Outcome::Reply(reply)] = &applied.outcomes[..] else {
            panic!("the operation was not answered");
        };
        // All replies have the value in field 1.
        match reply {
            Ok(reply) => Ok(GetResponse::decode(reply.clone()).unwrap().value),
            Err(error) => Err(error.code),
        }
    }

    fn value(&self) -> i64 {
        let reply = self.machine.query(&operation(Request::Get)).unwrap();
        GetResponse::decode(reply).unwrap().value
    }
}

fn entry(command: command::Command) -> CommandBatch {
    CommandBatch {
        commands: vec![Command {
            command: Some(command),
        }],
        ..CommandBatch::default()
    }
}

fn operation(request: Request) -> Operation {
    let id = None;
    let (method, request) = match request {
        Request::Set(value) => ("Set", SetRequest { id, value }.encode_to_vec()),
        Request::Update { check, update } => (
            "Update",
            UpdateRequest { id, check, update }.encode_to_vec(),
        ),
        Request::Get => ("Get", GetRequest { id }.encode_to_vec()),
        Request::Increment(delta) => ("Increment", IncrementRequest { id, delta }.encode_to_vec()),
        Request::Decrement(delta) => ("Decrement", DecrementRequest { id, delta }.encode_to_vec()),
    };
    Operation {
        kind: "counter".to_owned(),
        primitive: "visits".to_owned(),
        method: method.to_owned(),
        request: request.into(),
        owner: 0,
    }
}

#[test]
fn each_method_does_what_it_says() {
    use Request::{Decrement, Get, Increment, Set, Update};
    let aborted = Err(ErrorCode::Aborted);
    let out_of_range = Err(ErrorCode::OutOfRange);
    let update = |check, update| Update { check, update };
    // Before, the request, the answer, after.
    let table = [
        (0, Get, Ok(0), 0),
        (0, Increment(5), Ok(5), 5),
        (5, Increment(-7), Ok(-2), -2),
        (5, Increment(0), Ok(5), 5),
        (5, Decrement(7), Ok(-2), -2),
        (-2, Decrement(-2), Ok(0), 0),
        (5, Set(9), Ok(9), 9),
        (5, Set(0), Ok(0), 0),
        (5, Set(i64::MIN), Ok(i64::MIN), i64::MIN),
        (5, update(5, 6), Ok(6), 6),
        (5, update(4, 6), aborted, 5),
        (5, update(0, 6), aborted, 5),
        (0, update(0, 6), Ok(6), 6),
        (0, update(1, 6), aborted, 0),
        (i64::MAX, Increment(1), out_of_range, i64::MAX),
        (i64::MAX, Increment(-1), Ok(i64::MAX - 1), i64::MAX - 1),
        (i64::MIN, Increment(-1), out_of_range, i64::MIN),
        (i64::MIN, Decrement(1), out_of_range, i64::MIN),
        (0, Decrement(i64::MIN), out_of_range, 0),
        (-1, Decrement(i64::MIN), Ok(i64::MAX), i64::MAX),
    ];
    for (before, request, answer, after) in table {
        let mut fixture = Fixture::new();
        fixture.run(Set(before)).unwrap();
        assert_eq!(fixture.run(request), answer, "{request:?} at {before}");
        assert_eq!(fixture.value(), after, "{request:?} at {before}");
    }
}

#[test]
fn a_counter_exists_only_while_it_is_not_zero() {
    let mut fixture = Fixture::new();
    fixture
        .run(Request::Update {
            check: 1,
            update: 2,
        })
        .unwrap_err();
    assert_eq!(fixture.machine.primitives().count(), 0);
    fixture.run(Request::Increment(1)).unwrap();
    assert_eq!(fixture.machine.primitives().count(), 1);
    fixture.run(Request::Decrement(1)).unwrap();
    assert_eq!(fixture.machine.primitives().count(), 0);
    assert_eq!(fixture.machine.usage().primitives, 0);
    assert_eq!(fixture.value(), 0);
}

#[test]
fn a_request_that_does_not_decode_is_invalid_before_and_after_the_proposal() {
    let kinds = Kinds::standard();
    let mut garbage = operation(Request::Get);
    garbage.request = vec![0xff; 3].into();
    assert_eq!(
        kinds.validate(&garbage).unwrap_err().code,
        ErrorCode::InvalidArgument
    );
    let created = Operation {
        method: "Create".to_owned(),
        ..garbage
    };
    assert_eq!(
        kinds.validate(&created).unwrap_err().code,
        ErrorCode::Unimplemented
    );
}

#[test]
fn reads_do_not_go_through_the_log_and_writes_do() {
    let kinds = Kinds::standard();
    for request in [
        Request::Set(1),
        Request::Update {
            check: 0,
            update: 1,
        },
        Request::Increment(1),
        Request::Decrement(1),
    ] {
        assert_eq!(kinds.access(&operation(request)), Ok(Access::Write));
    }
    assert_eq!(kinds.access(&operation(Request::Get)), Ok(Access::Read));
}

fn request() -> impl Strategy<Value = Request> {
    let number = || prop_oneof![-3_i64..4, any::<i64>(), Just(i64::MAX), Just(i64::MIN)];
    prop_oneof![
        number().prop_map(Request::Set),
        (number(), number()).prop_map(|(check, update)| Request::Update { check, update }),
        Just(Request::Get),
        number().prop_map(Request::Increment),
        number().prop_map(Request::Decrement),
    ]
}

/// The rules once more, in 128 bits, where nothing overflows.
fn model(value: &mut i64, request: Request) -> Result<i64, ErrorCode> {
    let wanted = match request {
        Request::Set(set) => i128::from(set),
        Request::Update { check, .. } if check != *value => return Err(ErrorCode::Aborted),
        Request::Update { update, .. } => i128::from(update),
        Request::Get => i128::from(*value),
        Request::Increment(delta) => i128::from(*value) + i128::from(delta),
        Request::Decrement(delta) => i128::from(*value) - i128::from(delta),
    };
    *value = i64::try_from(wanted).map_err(|_| ErrorCode::OutOfRange)?;
    Ok(*value)
}

proptest! {
    #[test]
    fn any_sequence_of_requests_does_what_the_model_does(
        requests in proptest::collection::vec(request(), 1..60),
    ) {
        let mut fixture = Fixture::new();
        let mut expected = 0;
        for request in requests {
            let answer = fixture.run(request);
            prop_assert_eq!(answer, model(&mut expected, request));
            prop_assert_eq!(fixture.value(), expected);
            let exists = fixture.machine.primitives().count() == 1;
            prop_assert_eq!(exists, expected != 0);
        }
    }
}

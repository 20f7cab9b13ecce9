//! Conditions of a status: what they say, and how a new set follows an old one.
//! Not for deciding what is true; that is each controller's status step.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// Type of the condition that sums an object up.
pub const READY: &str = "Ready";
/// The operator is working towards the specification.
pub const PROGRESSING: &str = "Progressing";
/// Only a person can go on.
pub const STALLED: &str = "Stalled";
/// The object works, with less than its full strength.
pub const DEGRADED: &str = "Degraded";
/// Data was lost; the message says which.
pub const DATA_LOST: &str = "DataLost";
/// A Driver can be connected to.
pub const AVAILABLE: &str = "Available";
/// A Store uses the Driver.
pub const IN_USE: &str = "InUse";

/// Longest message of a condition, in bytes; the API server refuses more than 32,768.
pub const MESSAGE_LIMIT: usize = 1024;

/// A condition as a controller wants it, before its times are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedCondition {
    /// One of the types above.
    pub type_: &'static str,
    /// `True` or `False`; the operator never says `Unknown`.
    pub status: bool,
    /// CamelCase word for programs.
    pub reason: &'static str,
    /// Sentence for people: what, where, what to do.
    pub message: String,
}

impl WantedCondition {
    /// A condition that holds.
    pub fn is_true(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            type_,
            status: true,
            reason,
            message: message.into(),
        }
    }

    /// A condition that does not hold.
    pub fn is_false(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            type_,
            status: false,
            reason,
            message: message.into(),
        }
    }
}

/// The conditions to write after `previous`: exactly the wanted ones, in their order. The
/// transition time moves only when the status of a condition changes.
pub fn follow(
    previous: &[Condition],
    wanted: &[WantedCondition],
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    wanted
        .iter()
        .map(|condition| {
            let status = if condition.status { "True" } else { "False" };
            let unchanged_since = previous
                .iter()
                .find(|before| before.type_ == condition.type_ && before.status == status)
                .map(|before| before.last_transition_time.clone());
            Condition {
                type_: condition.type_.to_owned(),
                status: status.to_owned(),
                reason: condition.reason.to_owned(),
                message: shorten(&condition.message),
                observed_generation: Some(generation),
                last_transition_time: unchanged_since.unwrap_or(Time(now)),
            }
        })
        .collect()
}

/// The status of an object of ours that does not decode, as JSON.
pub fn undecodable_status(error: &str, generation: i64, now: Timestamp) -> Value {
    let message = format!("the object cannot be read: {error}; correct it");
    let wanted = [
        WantedCondition::is_false(READY, "InvalidObject", message.clone()),
        WantedCondition::is_true(STALLED, "InvalidObject", message),
    ];
    json!({
        "observedGeneration": generation,
        "conditions": follow(&[], &wanted, generation, now),
    })
}

/// Whether a condition of this type is there and `True`.
pub fn holds(conditions: &[Condition], type_: &str) -> bool {
    conditions
        .iter()
        .any(|condition| condition.type_ == type_ && condition.status == "True")
}

fn shorten(message: &str) -> String {
    if message.len() <= MESSAGE_LIMIT {
        return message.to_owned();
    }
    let mut end = MESSAGE_LIMIT - '…'.len_utf8();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", message.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let first = follow(
            &[],
            &[WantedCondition::is_true(READY, "Connected", "a")],
            1,
            at(10),
        );
        let second = follow(
            &first,
            &[WantedCondition::is_true(READY, "StillConnected", "b")],
            2,
            at(20),
        );
        let third = follow(
            &second,
            &[WantedCondition::is_false(READY, "Lost", "c")],
            2,
            at(30),
        );
        assert_eq!(second[0].last_transition_time, Time(at(10)));
        assert_eq!(second[0].observed_generation, Some(2));
        assert_eq!(second[0].reason, "StillConnected");
        assert_eq!(third[0].last_transition_time, Time(at(30)));
        assert!(holds(&second, READY) && !holds(&third, READY));
    }

    #[test]
    fn conditions_nobody_wants_any_more_disappear() {
        let first = follow(&[], &[WantedCondition::is_true(STALLED, "X", "")], 1, at(1));
        assert!(follow(&first, &[], 1, at(2)).is_empty());
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let cut = shorten(&"é".repeat(MESSAGE_LIMIT));
        assert!(cut.len() <= MESSAGE_LIMIT && cut.ends_with('…'));
        assert_eq!(shorten("short"), "short");
    }
}

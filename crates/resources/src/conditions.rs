//! Conditions of a status: what they say, and how a new set follows an old one.
//! Not for deciding what is true; that is each controller's status step.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

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

/// As [`follow`], but a condition of which nothing is wanted stays as it was: nobody has looked.
pub fn follow_some(
    previous: &[Condition],
    wanted: &[WantedCondition],
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let mut next = follow(previous, wanted, generation, now);
    let is_wanted =
        |condition: &Condition| wanted.iter().any(|wanted| wanted.type_ == condition.type_);
    let kept = previous.iter().filter(|condition| !is_wanted(condition));
    next.extend(kept.map(|condition| Condition {
        observed_generation: Some(generation),
        ..condition.clone()
    }));
    next
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
    fn what_is_not_looked_at_stays() {
        let lost = WantedCondition::is_true(DATA_LOST, "X", "all");
        let first = follow(&[], &[lost], 1, at(1));
        let halted = WantedCondition::is_true(STALLED, "Y", "");
        let second = follow_some(&first, &[halted], 2, at(2));
        assert!(holds(&second, DATA_LOST) && holds(&second, STALLED));
        let lost = second
            .iter()
            .find(|condition| condition.type_ == DATA_LOST)
            .unwrap();
        assert_eq!(lost.last_transition_time, Time(at(1)));
        assert_eq!(lost.observed_generation, Some(2));
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let cut = shorten(&"é".repeat(MESSAGE_LIMIT));
        assert!(cut.len() <= MESSAGE_LIMIT && cut.ends_with('…'));
        assert_eq!(shorten("short"), "short");
    }
}

//! Checks the part of a Store's `spec.config` that the multi-raft driver reads, so that a mistake is
//! told by the Store itself and not only by each pod that connects. Pure.
//!
//! The rules are the driver's (`multiraft/config.rs` in crates/driver); they stand here again
//! because the operator does without the driver and what that needs; a test of `driver_config`
//! compares the two.

use std::time::Duration;

use serde_json::{Map, Value};

/// How long a driver's session outlives its last keep-alive, unless the nodes elect so slowly that
/// a change of leader would end it.
const DEFAULT_SESSION: Duration = Duration::from_secs(30);

/// The driver refuses a session shorter than so many election timeouts.
const LEAST_ELECTIONS_OF_A_SESSION: u32 = 3;

const LEAST: Duration = Duration::from_millis(10);
const MOST: Duration = Duration::from_secs(3600);

/// The session timeout of a Store that names none.
#[must_use]
pub fn default_session(election: Duration) -> Duration {
    DEFAULT_SESSION.max(election * LEAST_ELECTIONS_OF_A_SESSION)
}

/// What is wrong with `spec.config.timeouts` of a Store whose nodes have this election timeout;
/// each problem is a sentence that names the field and what it should be.
#[must_use]
pub fn problems(given: &Value, nodes_election: Duration) -> Vec<String> {
    let Value::Object(fields) = given else {
        return vec![format!(
            "spec.config.timeouts is {given}: give an object with session, election or connect"
        )];
    };
    let mut problems: Vec<String> = fields
        .keys()
        .filter(|name| !["session", "election", "connect"].contains(&name.as_str()))
        .map(|name| {
            format!("spec.config.timeouts.{name} is unknown: give session, election or connect")
        })
        .collect();
    let session = duration(fields, "session", &mut problems);
    let election = duration(fields, "election", &mut problems);
    duration(fields, "connect", &mut problems);
    if !problems.is_empty() {
        return problems;
    }
    let election = election.unwrap_or(nodes_election);
    let least = election * LEAST_ELECTIONS_OF_A_SESSION;
    // The default follows the nodes' election timeout, not another one that is given here.
    let session = session.unwrap_or_else(|| default_session(nodes_election));
    if session < least {
        problems.push(format!(
            "spec.config.timeouts.session is {session:?}: give at least {least:?}, which is three \
             times the election timeout"
        ));
    }
    problems
}

fn duration(
    fields: &Map<String, Value>,
    name: &str,
    problems: &mut Vec<String>,
) -> Option<Duration> {
    let value = fields.get(name)?;
    let duration = value.as_str().and_then(parse);
    let duration = duration.filter(|duration| (LEAST..=MOST).contains(duration));
    if duration.is_none() {
        problems.push(format!(
            "spec.config.timeouts.{name} is {value}: give a whole number with ms, s or m, from \
             10ms to 60m, such as \"500ms\""
        ));
    }
    duration
}

fn parse(text: &str) -> Option<Duration> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_wrong_timeout_is_named() {
        let second = Duration::from_secs(1);
        for (given, election, expected) in [
            (json!({}), second, vec![]),
            (
                json!({"session": "3s", "election": "1000ms", "connect": "1m"}),
                second,
                vec![],
            ),
            (json!("short"), second, vec!["give an object"]),
            (json!(null), second, vec!["give an object"]),
            (
                json!({"sesion": "3s", "connect": 5}),
                second,
                vec!["timeouts.sesion is unknown", "timeouts.connect is 5"],
            ),
            (json!({"session": "9ms"}), second, vec!["from 10ms"]),
            (json!({"session": "61m"}), second, vec!["to 60m"]),
            (json!({"session": "1.5s"}), second, vec!["a whole number"]),
            (json!({"session": ""}), second, vec!["a whole number"]),
            (json!({"session": "2999ms"}), second, vec!["at least 3s"]),
            (json!({"election": "11s"}), second, vec!["at least 33s"]),
            (json!({"session": "30s"}), 20 * second, vec!["at least 60s"]),
            (json!({"connect": "1s"}), 20 * second, vec![]),
        ] {
            let found = problems(&given, election);
            assert_eq!(found.len(), expected.len(), "{given}: {found:?}");
            for (problem, part) in found.iter().zip(&expected) {
                assert!(problem.contains(part), "{given}: {problem}");
            }
        }
    }
}

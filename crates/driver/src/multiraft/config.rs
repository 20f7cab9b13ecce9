//! The configuration of a `multi-raft` store: strict JSON into strong types.
//!
//! ```json
//! {"service": "store-a.team.svc", "partitions": 8,
//!  "timeouts": {"session": "30s", "election": "1s", "connect": "2s"}}
//! ```
//! - `service`: the headless Service of the storage nodes, `host` or `host:port` (port 5681), or
//!   `nodes`: a list of them; exactly one of the two.
//! - `partitions`: how many partitions the store has; it never changes.
//! - `timeouts.session`: how long a session outlives its last keep-alive; default 30 s.
//! - `timeouts.election`: the nodes' election timeout, after which a silent node is passed over;
//!   default 1 s. At most a third of `session`.
//! - `timeouts.connect`: how long connecting to one node may take; default 2 s.
//! - `tls`: whether the nodes speak mutual TLS; default false.
//!
//! Durations are a number and a unit: `ms`, `s` or `m`. Unknown fields are refused.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::error::DriverError;
use crate::resolver::HostPort;

/// The port on which storage nodes serve drivers.
pub const DEFAULT_NODE_PORT: u16 = 5681;
const MAX_PARTITIONS: u32 = 1024;
const MIN_TIMEOUT: Duration = Duration::from_millis(10);
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Names whose addresses are the storage nodes.
    pub nodes: Vec<HostPort>,
    /// The number of partitions.
    pub partitions: u32,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Whether the nodes speak mutual TLS.
    pub tls: bool,
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// How long a session outlives its last keep-alive.
    pub session: Duration,
    /// How long a node may be silent before another one is asked.
    pub election: Duration,
    /// How long connecting to one node may take.
    pub connect: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            session: Duration::from_secs(30),
            election: Duration::from_secs(1),
            connect: Duration::from_secs(2),
        }
    }
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), naming the field.
    pub fn parse(json: &[u8]) -> Result<Self, DriverError> {
        let value: Value = serde_json::from_slice(json)
            .map_err(|error| DriverError::invalid(format!("config is not JSON: {error}")))?;
        let Value::Object(mut fields) = value else {
            return Err(DriverError::invalid("config must be a JSON object"));
        };
        let nodes = match (fields.remove("service"), fields.remove("nodes")) {
            (Some(service), None) => vec![host_port("service", &service)?],
            (None, Some(nodes)) => node_list(&nodes)?,
            (Some(_), Some(_)) => {
                return Err(DriverError::invalid(
                    "config fields service and nodes exclude each other",
                ));
            }
            (None, None) => return Err(DriverError::invalid("config field service is missing")),
        };
        let partitions = partition_count(fields.remove("partitions"))?;
        let timeouts = match fields.remove("timeouts") {
            None => Timeouts::default(),
            Some(timeouts) => parse_timeouts(timeouts)?,
        };
        let tls = match fields.remove("tls") {
            None => false,
            Some(Value::Bool(tls)) => tls,
            Some(other) => {
                return Err(DriverError::invalid(format!(
                    "config field tls must be true or false, not {other}"
                )));
            }
        };
        refuse_unknown("", &fields)?;
        Ok(Self {
            nodes,
            partitions,
            timeouts,
            tls,
        })
    }
}

fn host_port(field: &str, value: &Value) -> Result<HostPort, DriverError> {
    value
        .as_str()
        .and_then(|text| HostPort::parse(text, Some(DEFAULT_NODE_PORT)))
        .ok_or_else(|| {
            DriverError::invalid(format!(
                "config field {field} must be host or host:port, not {value}"
            ))
        })
}

fn node_list(value: &Value) -> Result<Vec<HostPort>, DriverError> {
    match value {
        Value::Array(nodes) if !nodes.is_empty() => nodes
            .iter()
            .enumerate()
            .map(|(index, node)| host_port(&format!("nodes[{index}]"), node))
            .collect(),
        _ => Err(DriverError::invalid(
            "config field nodes must be a list of at least one host:port",
        )),
    }
}

fn partition_count(value: Option<Value>) -> Result<u32, DriverError> {
    let value = value.ok_or_else(|| DriverError::invalid("config field partitions is missing"))?;
    value
        .as_u64()
        .and_then(|count| u32::try_from(count).ok())
        .filter(|count| (1..=MAX_PARTITIONS).contains(count))
        .ok_or_else(|| {
            DriverError::invalid(format!(
                "config field partitions must be a number from 1 to {MAX_PARTITIONS}, not {value}"
            ))
        })
}

fn parse_timeouts(value: Value) -> Result<Timeouts, DriverError> {
    let Value::Object(mut fields) = value else {
        return Err(DriverError::invalid(
            "config field timeouts must be an object",
        ));
    };
    let mut timeouts = Timeouts::default();
    for (name, timeout) in [
        ("session", &mut timeouts.session),
        ("election", &mut timeouts.election),
        ("connect", &mut timeouts.connect),
    ] {
        if let Some(value) = fields.remove(name) {
            *timeout = duration(name, &value)?;
        }
    }
    refuse_unknown("timeouts.", &fields)?;
    if timeouts.session < timeouts.election * 3 {
        return Err(DriverError::invalid(
            "config field timeouts.session must be at least three times timeouts.election",
        ));
    }
    Ok(timeouts)
}

fn duration(field: &str, value: &Value) -> Result<Duration, DriverError> {
    value
        .as_str()
        .and_then(parse_duration)
        .filter(|duration| (MIN_TIMEOUT..=MAX_TIMEOUT).contains(duration))
        .ok_or_else(|| {
            DriverError::invalid(format!(
                "config field timeouts.{field} must be a duration from 10ms to 60m such as \
                 \"500ms\" or \"30s\", not {value}"
            ))
        })
}

fn parse_duration(text: &str) -> Option<Duration> {
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

fn refuse_unknown(prefix: &str, rest: &Map<String, Value>) -> Result<(), DriverError> {
    match rest.keys().next() {
        None => Ok(()),
        Some(field) => Err(DriverError::invalid(format!(
            "config field {prefix}{field} is unknown"
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_full_configuration_is_read() {
        let config = Config::parse(
            br#"{"service": "store-a.team.svc:7001", "partitions": 8,
                 "timeouts": {"session": "2m", "election": "500ms", "connect": "3s"},
                 "tls": true}"#,
        )
        .unwrap();
        assert_eq!(
            config,
            Config {
                nodes: vec![HostPort {
                    host: "store-a.team.svc".into(),
                    port: 7001
                }],
                partitions: 8,
                timeouts: Timeouts {
                    session: Duration::from_secs(120),
                    election: Duration::from_millis(500),
                    connect: Duration::from_secs(3),
                },
                tls: true,
            }
        );
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = Config::parse(br#"{"nodes": ["a", "127.0.0.1:9"], "partitions": 1}"#).unwrap();
        let nodes: Vec<_> = config
            .nodes
            .iter()
            .map(|node| (node.host.as_str(), node.port))
            .collect();
        assert_eq!(nodes, [("a", 5681), ("127.0.0.1", 9)]);
        assert_eq!(config.timeouts, Timeouts::default());
        assert!(!config.tls);
    }

    #[test]
    fn each_bad_configuration_is_refused_by_the_name_of_its_field() {
        let cases = [
            ("", "not JSON"),
            ("[]", "JSON object"),
            ("null", "JSON object"),
            ("{}", "service is missing"),
            (r#"{"service": "a"}"#, "partitions is missing"),
            (r#"{"service": "", "partitions": 1}"#, "field service must"),
            (r#"{"service": 7, "partitions": 1}"#, "field service must"),
            (
                r#"{"service": "a:b", "partitions": 1}"#,
                "field service must",
            ),
            (
                r#"{"service": "a", "nodes": ["b"], "partitions": 1}"#,
                "exclude",
            ),
            (r#"{"nodes": [], "partitions": 1}"#, "field nodes must"),
            (r#"{"nodes": "a", "partitions": 1}"#, "field nodes must"),
            (r#"{"nodes": ["a", "b c"], "partitions": 1}"#, "nodes[1]"),
            (
                r#"{"service": "a", "partitions": 0}"#,
                "field partitions must",
            ),
            (
                r#"{"service": "a", "partitions": 1025}"#,
                "field partitions must",
            ),
            (
                r#"{"service": "a", "partitions": -1}"#,
                "field partitions must",
            ),
            (
                r#"{"service": "a", "partitions": 1.5}"#,
                "field partitions must",
            ),
            (
                r#"{"service": "a", "partitions": "1"}"#,
                "field partitions must",
            ),
            (
                r#"{"service": "a", "partitions": 1, "partition": 2}"#,
                "field partition is unknown",
            ),
            (
                r#"{"service": "a", "partitions": 1, "timeouts": 3}"#,
                "timeouts must",
            ),
            (
                r#"{"service": "a", "partitions": 1, "timeouts": {"x": "1s"}}"#,
                "timeouts.x is unknown",
            ),
            (
                r#"{"service": "a", "partitions": 1, "timeouts": {"session": 3}}"#,
                "timeouts.session must",
            ),
            (
                r#"{"service": "a", "partitions": 1, "timeouts": {"session": "3"}}"#,
                "timeouts.session must",
            ),
            (
                r#"{"service": "a", "partitions": 1, "timeouts": {"session": "s"}}"#,
                "timeouts.session must",
            ),
            (
                r#"{"service": "a", "partitions": 1, "timeouts": {"connect": "1ms"}}"#,
                "timeouts.connect must",
            ),
            (
                r#"{"service": "a", "partitions": 1, "timeouts": {"connect": "99999999999999999999s"}}"#,
                "timeouts.connect must",
            ),
            (
                r#"{"service": "a", "partitions": 1, "timeouts": {"session": "2s"}}"#,
                "three times",
            ),
        ];
        for (json, expected) in cases {
            let error = Config::parse(json.as_bytes()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid, "{json}");
            assert!(error.message.contains(expected), "{json}: {error}");
        }
    }
}

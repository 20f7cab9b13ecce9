//! When a caller stops waiting.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::MetadataMap;

const HEADER: &str = "grpc-timeout";
/// How much earlier than the caller we give up, so that our answer, which says why, is the one that
/// it sees: a twentieth of its patience, at most this.
const MAX_MARGIN: Duration = Duration::from_millis(50);

/// The caller's deadline, a little early; `None` when it has none.
///
/// # Errors
/// INVALID_ARGUMENT for a header that is not as gRPC specifies it.
pub fn of(metadata: &MetadataMap) -> Result<Option<Instant>, Status> {
    let Some(value) = metadata.get(HEADER) else {
        return Ok(None);
    };
    let timeout = value
        .to_str()
        .ok()
        .and_then(parse)
        .ok_or_else(|| Status::invalid_argument("the grpc-timeout header is malformed"))?;
    let margin = (timeout / 20).min(MAX_MARGIN);
    Ok(Instant::now().checked_add(timeout - margin))
}

/// At most eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        let cases = [
            ("1H", Some(Duration::from_secs(3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("30S", Some(Duration::from_secs(30))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("7n", Some(Duration::from_nanos(7))),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("123456789S", None),
            ("1ß", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }
}

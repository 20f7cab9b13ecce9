//! Sizes as Kubernetes writes them. Pure.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The bytes of a size, rounded up; `None` for what is no size.
#[must_use]
pub fn bytes(quantity: &Quantity) -> Option<u128> {
    let text = quantity.0.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    // `1E` is a suffix, `1e3` and `1E3` are exponents.
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let value: u128 = digits.parse().ok()?;
    let unit = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let (factor, divisor) = scale(suffix)?;
    Some(
        value
            .checked_mul(factor)?
            .div_ceil(unit.checked_mul(divisor)?),
    )
}

/// What a suffix multiplies and divides by.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    let binary = |power: u32| Some((1024_u128.pow(power), 1));
    let decimal = |power: u32| Some((1000_u128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => decimal(1),
        "M" => decimal(2),
        "G" => decimal(3),
        "T" => decimal(4),
        "P" => decimal(5),
        "E" => decimal(6),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        exponent => {
            let power = exponent.strip_prefix(['e', 'E'])?;
            let power: i32 = power.parse().ok()?;
            let scale = 10_u128.checked_pow(power.unsigned_abs())?;
            Some(if power < 0 { (1, scale) } else { (scale, 1) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_kubernetes_reads_them() {
        for (text, expected) in [
            ("64Mi", Some(64 << 20)),
            ("1Gi", Some(1 << 30)),
            ("1024Mi", Some(1 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("1G", Some(1_000_000_000)),
            ("1073741824", Some(1 << 30)),
            ("1e9", Some(1_000_000_000)),
            ("1E3", Some(1000)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("2500m", Some(3)),
            ("12e-1", Some(2)),
            (".5Ki", Some(512)),
            ("", None),
            ("Gi", None),
            ("1gi", None),
            ("-1Gi", None),
            ("1.2.3", None),
        ] {
            assert_eq!(bytes(&Quantity(text.to_owned())), expected, "{text:?}");
        }
    }
}

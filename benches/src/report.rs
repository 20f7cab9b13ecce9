//! Rows of a report: a median, and all that was measured, or of many values a few.

/// The middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The smallest value that this share of all does not exceed.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in a short list"
    )]
    let place = (share * sorted.len() as f64).ceil() as usize;
    let value = sorted.get(place.saturating_sub(1));
    value.copied().unwrap_or(f64::NAN)
}

/// Prints a row of a table with the columns "what", "number", "p50", "p99", "least to most".
pub(crate) fn row_of_many(what: &str, unit: &str, values: &[f64]) {
    println!(
        "| {what} | {} | {:.0} {unit} | {:.0} {unit} | {:.0} to {:.0} {unit} |",
        values.len(),
        quantile(values, 0.5),
        quantile(values, 0.99),
        quantile(values, 0.0),
        quantile(values, 1.0),
    );
}

/// Prints a row of a table with the columns "what", "median", "all".
pub(crate) fn row(what: &str, unit: &str, values: &[f64]) {
    let all: Vec<String> = values.iter().map(|value| format!("{value:.2}")).collect();
    println!(
        "| {what} | {:.2} {unit} | {} |",
        median(values),
        all.join(", ")
    );
}

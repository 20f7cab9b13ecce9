//! Rows of a report: a median, and all that was measured.

/// The middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
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

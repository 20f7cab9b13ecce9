//! What an operator's metrics say of its work: requests to the API server, calls to nodes and runtimes,
//! reconciles, events that were dropped.

use std::collections::BTreeMap;

use anyhow::Context as _;

/// Counts since the operator's start, or of a time ([`Metrics::since`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metrics {
    /// By verb and resource, such as `patch stores`; without the lease's.
    pub(crate) requests: BTreeMap<String, u64>,
    /// By controller.
    pub(crate) reconciles: BTreeMap<String, u64>,
    /// To nodes and runtimes, by service and method.
    pub(crate) calls: BTreeMap<String, u64>,
    /// Too many waited to be written.
    pub(crate) events_dropped: u64,
}

impl Metrics {
    /// Reads the page `/metrics`.
    pub(crate) fn read(page: &str) -> anyhow::Result<Self> {
        let mut metrics = Self::default();
        for line in page.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            match name {
                "atomix_operator_api_requests_total" => {
                    let (verb, resource) = (label(labels, "verb")?, label(labels, "resource")?);
                    if resource != "leases" {
                        let request = format!("{verb} {resource}");
                        metrics.requests.insert(request, value.parse()?);
                    }
                }
                "atomix_operator_reconcile_duration_seconds_count" => {
                    let controller = label(labels, "controller")?;
                    metrics
                        .reconciles
                        .insert(controller.to_owned(), value.parse()?);
                }
                "atomix_operator_grpc_calls_total" => {
                    let method = label(labels, "method")?;
                    let method = method.rsplit('.').next().unwrap_or(method);
                    metrics.calls.insert(method.to_owned(), value.parse()?);
                }
                "atomix_operator_events_dropped_total" => metrics.events_dropped = value.parse()?,
                _ => {}
            }
        }
        Ok(metrics)
    }

    /// What has been added since.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            requests: difference(&self.requests, &before.requests),
            reconciles: difference(&self.reconciles, &before.reconciles),
            calls: difference(&self.calls, &before.calls),
            events_dropped: self.events_dropped - before.events_dropped,
        }
    }

    /// Requests that change something.
    pub(crate) fn writes(&self) -> u64 {
        let by_verb = self.requests_by_verb();
        let writes = by_verb
            .iter()
            .filter(|(verb, _)| !["get", "list", "watch"].contains(verb));
        writes.map(|(_, number)| number).sum()
    }

    /// How many requests of each verb one reconcile makes, whatever its controller.
    pub(crate) fn requests_per_reconcile(&self) -> String {
        let reconciles = as_float(self.reconciles.values().sum());
        if reconciles == 0.0 {
            return "no reconcile".to_owned();
        }
        let by_verb = self.requests_by_verb();
        let shares = by_verb
            .iter()
            .map(|(verb, number)| format!("{:.4} {verb}", as_float(*number) / reconciles));
        or_none(shares.collect::<Vec<_>>().join(", "))
    }

    fn requests_by_verb(&self) -> BTreeMap<&str, u64> {
        let mut by_verb = BTreeMap::new();
        for (request, number) in &self.requests {
            let verb = request.split(' ').next().unwrap_or_default();
            *by_verb.entry(verb).or_default() += number;
        }
        by_verb
    }
}

/// All counts in a line.
pub(crate) fn shown(counts: &BTreeMap<String, u64>) -> String {
    let lines = counts
        .iter()
        .map(|(name, number)| format!("{number} {name}"));
    or_none(lines.collect::<Vec<_>>().join(", "))
}

fn or_none(text: String) -> String {
    if text.is_empty() {
        return "none".to_owned();
    }
    text
}

fn label<'a>(labels: &'a str, name: &str) -> anyhow::Result<&'a str> {
    let begin = format!("{name}=\"");
    let value = labels.split(&begin).nth(1);
    let value = value.and_then(|value| value.split('"').next());
    value.with_context(|| format!("a metric without {name}: {labels}"))
}

fn difference(
    now: &BTreeMap<String, u64>,
    before: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let of = |name: &String| before.get(name).copied().unwrap_or_default();
    now.iter()
        .map(|(name, count)| (name.clone(), count - of(name)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

pub(crate) fn as_float(number: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let number = number as f64;
    number
}

//! Counts pods for many selectors in one go.

use std::collections::{BTreeMap, HashMap};

use atomix_resources::session::PodSelector;

/// More pods are not counted.
pub(super) const MOST_COUNTED: u32 = 100;

/// Counts pods for many selectors, each looked at only for pods that have its first label.
pub(super) struct Tally<'a> {
    selectors: &'a [PodSelector],
    by_label: HashMap<(&'a str, &'a str), Vec<usize>>,
    pub(super) numbers: Vec<u32>,
}

impl<'a> Tally<'a> {
    pub(super) fn new(selectors: &'a [PodSelector]) -> Self {
        let mut by_label: HashMap<_, Vec<usize>> = HashMap::new();
        for (at, selector) in selectors.iter().enumerate() {
            if let Some((key, value)) = selector.match_labels.first_key_value() {
                let label = (key.as_str(), value.as_str());
                by_label.entry(label).or_default().push(at);
            }
        }
        Self {
            selectors,
            by_label,
            numbers: vec![0; selectors.len()],
        }
    }

    pub(super) fn add(&mut self, labels: &BTreeMap<String, String>) {
        for (key, value) in labels {
            let candidates = self.by_label.get(&(key.as_str(), value.as_str()));
            for at in candidates.into_iter().flatten() {
                let is_selected = self
                    .selectors
                    .get(*at)
                    .is_some_and(|one| one.matches(labels));
                if let Some(number) = self.numbers.get_mut(*at)
                    && is_selected
                {
                    *number = (*number + 1).min(MOST_COUNTED);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(value: &str) -> PodSelector {
        PodSelector {
            match_labels: BTreeMap::from([("app".to_owned(), value.to_owned())]),
            match_expressions: None,
        }
    }

    #[test]
    fn a_look_counts_for_each_selector_what_it_selects() {
        let narrow = PodSelector {
            match_labels: BTreeMap::from([
                ("app".to_owned(), "hive".to_owned()),
                ("tier".to_owned(), "web".to_owned()),
            ]),
            match_expressions: None,
        };
        let selectors = [selector("hive"), selector("nest"), narrow];
        let mut tally = Tally::new(&selectors);
        let pod = |labels: &[(&str, &str)]| {
            let labels = labels.iter();
            let labels = labels.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            labels.collect::<BTreeMap<_, _>>()
        };
        tally.add(&pod(&[("app", "hive"), ("tier", "web")]));
        tally.add(&pod(&[("app", "hive")]));
        tally.add(&pod(&[("tier", "web")]));
        assert_eq!(tally.numbers, [2, 0, 1]);
        for _ in 0..200 {
            tally.add(&pod(&[("app", "nest")]));
        }
        assert_eq!(tally.numbers, [2, MOST_COUNTED, 1]);
    }
}

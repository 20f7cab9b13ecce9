//! Which operator a Store is managed by: what a person has declared, else whom its nodes listen to.
//! Pure.
//!
//! Not for the fence itself: nodes refuse by themselves (`atomix_process::grpc::fencing`). This
//! keeps two operators from undoing each other's work at the API server, where nothing refuses.

use kube::ResourceExt as _;

use atomix_resources::Store;
use atomix_resources::labels::OPERATOR;

/// Whether this operator may act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// Nobody else claims the Store.
    Ours,
    /// A person has said that it is this operator's, so its calls may take nodes over.
    Declared,
    /// It is managed by this other operator.
    Other(String),
}

/// Who manages a Store, for the operator `own`; `seen` are the operators that its nodes listen to.
#[must_use]
pub fn judge<'a>(
    declared: Option<&str>,
    own: &str,
    mut seen: impl Iterator<Item = &'a str>,
) -> Ownership {
    match declared {
        Some(declared) if declared == own => Ownership::Declared,
        Some(other) => Ownership::Other(other.to_owned()),
        None => match seen.find(|seen| !seen.is_empty() && *seen != own) {
            Some(other) => Ownership::Other(other.to_owned()),
            None => Ownership::Ours,
        },
    }
}

/// The operator that a person has declared.
#[must_use]
pub fn declared(store: &Store) -> Option<&str> {
    store.annotations().get(OPERATOR).map(String::as_str)
}

/// What a person reads of another operator's Store.
#[must_use]
pub fn message(store: &str, own: &str, other: &str) -> String {
    format!(
        "managed by the operator {other}, so this one, {own}, leaves it alone: uninstall {own}, or \
         stop {other} and run `kubectl atomix store take-over {store}` with this one"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_declares_counts_more_than_whom_the_nodes_listen_to() {
        let (bees, ants) = ("meadow/bees", "meadow/ants");
        let other = |id: &str| Ownership::Other(id.to_owned());
        for (declared, seen, expected) in [
            (None, vec![], Ownership::Ours),
            (None, vec!["", bees], Ownership::Ours),
            (None, vec![bees, ants], other(ants)),
            (Some(bees), vec![ants], Ownership::Declared),
            (Some(ants), vec![bees], other(ants)),
            (Some(ants), vec![], other(ants)),
        ] {
            let judged = judge(declared, bees, seen.iter().copied());
            assert_eq!(judged, expected, "{declared:?} {seen:?}");
        }
    }
}

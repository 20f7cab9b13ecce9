//! The newest report of each pod, and for each Session the pods that were programmed for it. Pure.

use std::collections::{BTreeSet, HashMap};

use super::keys_by::KeysBy;
use super::report::PodReport;
use atomix_controller::ObjectKey;

/// All reports.
#[derive(Debug, Default)]
pub(super) struct Reports {
    by_pod: HashMap<ObjectKey, PodReport>,
    programmed_for: KeysBy<ObjectKey>,
}

impl Reports {
    pub(super) fn get(&self, pod: &ObjectKey) -> Option<&PodReport> {
        self.by_pod.get(pod)
    }

    /// The pods that were, or may have been, programmed for a Session.
    pub(super) fn programmed_for(&self, session: &ObjectKey) -> BTreeSet<ObjectKey> {
        self.programmed_for.get(session).cloned().collect()
    }

    /// Replaces a pod's report; returns the one before.
    pub(super) fn insert(&mut self, pod: &ObjectKey, report: PodReport) -> Option<PodReport> {
        let before = self.remove(pod);
        for session in report.programmed() {
            self.programmed_for.insert(session.clone(), pod);
        }
        self.by_pod.insert(pod.clone(), report);
        before
    }

    /// Notes that a pod may soon be programmed for more Sessions.
    pub(super) fn extend(&mut self, pod: &ObjectKey, sessions: BTreeSet<ObjectKey>) {
        for session in &sessions {
            self.programmed_for.insert(session.clone(), pod);
        }
        if let Some(report) = self.by_pod.get_mut(pod) {
            report.add_programmed(sessions);
        }
    }

    pub(super) fn remove(&mut self, pod: &ObjectKey) -> Option<PodReport> {
        let before = self.by_pod.remove(pod)?;
        for session in before.programmed() {
            self.programmed_for.remove(session, pod);
        }
        Some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("garden", name)
    }

    fn report(sessions: &[&str]) -> PodReport {
        let mut report = PodReport::default();
        report.add_programmed(sessions.iter().map(|name| key(name)));
        report
    }

    #[test]
    fn the_pods_of_a_session_follow_the_reports() {
        let mut reports = Reports::default();
        reports.insert(&key("pod-1"), report(&["a"]));
        reports.insert(&key("pod-2"), report(&["a", "b"]));
        assert_eq!(reports.programmed_for(&key("a")).len(), 2);
        reports.extend(&key("pod-1"), [key("b")].into());
        assert_eq!(reports.programmed_for(&key("b")).len(), 2);
        reports.insert(&key("pod-1"), report(&[]));
        assert_eq!(reports.programmed_for(&key("b")), [key("pod-2")].into());
        reports.remove(&key("pod-2"));
        assert!(reports.programmed_for.is_empty());
    }
}

//! Selected pods without a runtime. They are not watched, so each Session looks for its own once for
//! each of its specifications, by a LIST. Sessions that look at the same time share one, or an
//! operator that starts would make the API server go through all pods as often as there are Sessions.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use atomix_controller::{ApiError, call};
use atomix_resources::labels::RUNTIME;
use atomix_resources::session::PodSelector;

/// More pods without a runtime are not counted.
const MOST_COUNTED: u32 = 100;

/// Pods of one page of a LIST that several Sessions share.
const PAGE: u32 = 500;

/// Looks for pods without a runtime. Clones share their LISTs.
#[derive(Clone, Debug, Default)]
pub(super) struct Strays {
    namespaces: Arc<Mutex<HashMap<String, Waiting>>>,
}

/// Those who wait until a look has ended that began before they asked.
type Waiting = Vec<(PodSelector, oneshot::Sender<Turn>)>;

/// What becomes of one who waited.
#[derive(Debug)]
enum Turn {
    /// Somebody has looked for it.
    Counted(u32),
    /// It looks itself, and for those who wait still.
    Look,
}

/// The one who looks in a namespace. Whatever its end, the next one looks then.
struct Looking<'a> {
    strays: &'a Strays,
    namespace: &'a str,
}

impl Strays {
    /// How many living pods of the namespace are selected and have no runtime, at most 100.
    pub(super) async fn count(
        &self,
        client: &Client,
        namespace: &str,
        selector: &PodSelector,
    ) -> Result<u32, ApiError> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        self.share(namespace, selector, |selectors| look(pods, selectors))
            .await
    }

    /// Has `look` answer for this selector and for those that came while another look went on, or
    /// gets the answer from somebody else's. Either way the look began after this was called.
    async fn share<E, F>(
        &self,
        namespace: &str,
        selector: &PodSelector,
        look: impl FnOnce(Vec<PodSelector>) -> F,
    ) -> Result<u32, E>
    where
        F: Future<Output = Result<Vec<u32>, E>>,
    {
        let others = match self.enter(namespace, selector) {
            None => Vec::new(),
            Some(turn) => match turn.await {
                Ok(Turn::Counted(number)) => return Ok(number),
                Ok(Turn::Look) => self.take(namespace),
                // The look failed.
                Err(_) => return Ok(first(look(vec![selector.clone()]).await?)),
            },
        };
        let _looking = Looking {
            strays: self,
            namespace,
        };
        let mut selectors = vec![selector.clone()];
        let (more, turns): (Vec<_>, Vec<_>) = others.into_iter().unzip();
        selectors.extend(more);
        let numbers = look(selectors).await?;
        for (turn, number) in turns.into_iter().zip(numbers.iter().skip(1)) {
            // It may have given up.
            let _ = turn.send(Turn::Counted(*number));
        }
        Ok(first(numbers))
    }

    /// `None` when nobody looks in the namespace: the caller does then.
    fn enter(&self, namespace: &str, selector: &PodSelector) -> Option<oneshot::Receiver<Turn>> {
        let mut namespaces = self.namespaces.lock();
        let Some(waiting) = namespaces.get_mut(namespace) else {
            namespaces.insert(namespace.to_owned(), Waiting::new());
            return None;
        };
        let (sender, turn) = oneshot::channel();
        waiting.push((selector.clone(), sender));
        Some(turn)
    }

    fn take(&self, namespace: &str) -> Waiting {
        let mut namespaces = self.namespaces.lock();
        namespaces
            .get_mut(namespace)
            .map(std::mem::take)
            .unwrap_or_default()
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        let mut namespaces = self.strays.namespaces.lock();
        while let Some((_, turn)) = namespaces.get_mut(self.namespace).and_then(Vec::pop) {
            if turn.send(Turn::Look).is_ok() {
                return;
            }
        }
        namespaces.remove(self.namespace);
    }
}

fn first(numbers: Vec<u32>) -> u32 {
    numbers.into_iter().next().unwrap_or_default()
}

/// One LIST of metadata for all these selectors.
async fn look(pods: Api<Pod>, selectors: Vec<PodSelector>) -> Result<Vec<u32>, ApiError> {
    let action = "look for selected pods without a runtime";
    let params = ListParams::default().fields("status.phase!=Succeeded,status.phase!=Failed");
    let without_runtime = format!("{RUNTIME}!=true");
    if let [selector] = selectors.as_slice() {
        let selector = format!("{},{without_runtime}", selector.as_text());
        let params = params.labels(&selector).limit(MOST_COUNTED);
        let found = call(action, pods.list_metadata(&params)).await?;
        return Ok(vec![
            u32::try_from(found.items.len()).unwrap_or(MOST_COUNTED),
        ]);
    }
    let mut tally = Tally::new(&selectors);
    let mut params = params.labels(&without_runtime).limit(PAGE);
    loop {
        let page = call(action, pods.list_metadata(&params)).await?;
        for labels in page
            .items
            .iter()
            .filter_map(|pod| pod.metadata.labels.as_ref())
        {
            tally.add(labels);
        }
        match page.metadata.continue_ {
            Some(next) if !next.is_empty() => params.continue_token = Some(next),
            _ => return Ok(tally.numbers),
        }
    }
}

/// Counts pods for many selectors, each looked at only for pods that have its first label.
struct Tally<'a> {
    selectors: &'a [PodSelector],
    by_label: HashMap<(&'a str, &'a str), Vec<usize>>,
    numbers: Vec<u32>,
}

impl<'a> Tally<'a> {
    fn new(selectors: &'a [PodSelector]) -> Self {
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

    fn add(&mut self, labels: &BTreeMap<String, String>) {
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
    use std::cell::RefCell;
    use std::convert::Infallible;

    use futures::FutureExt as _;
    use futures::future::join_all;

    use super::*;

    fn selector(value: &str) -> PodSelector {
        PodSelector {
            match_labels: BTreeMap::from([("app".to_owned(), value.to_owned())]),
            match_expressions: None,
        }
    }

    fn number_of(selector: &PodSelector) -> u32 {
        let value = selector.match_labels.get("app");
        value
            .and_then(|value| value.parse().ok())
            .unwrap_or_default()
    }

    #[tokio::test]
    async fn those_who_ask_while_another_looks_share_the_next_look() {
        let strays = Strays::default();
        let looks = RefCell::new(Vec::new());
        let asked = (1..=20).map(|number: u32| {
            let (strays, looks) = (&strays, &looks);
            async move {
                let selector = selector(&number.to_string());
                let counted = strays.share("garden", &selector, |selectors| async move {
                    tokio::task::yield_now().await;
                    looks.borrow_mut().push(selectors.len());
                    Ok::<_, Infallible>(selectors.iter().map(number_of).collect())
                });
                assert_eq!(counted.await, Ok(number));
            }
        });
        join_all(asked).await;
        assert_eq!(*looks.borrow(), [1, 19]);
        assert!(strays.namespaces.lock().is_empty());
    }

    #[tokio::test]
    async fn after_a_failed_or_abandoned_look_everybody_still_gets_an_answer() {
        let strays = Strays::default();
        let selector = selector("7");
        let stuck = strays.share("garden", &selector, |_| {
            std::future::pending::<Result<_, ()>>()
        });
        let mut stuck = Box::pin(stuck);
        assert!(stuck.as_mut().now_or_never().is_none());
        let look = |fails: bool| {
            strays.share("garden", &selector, move |selectors| async move {
                tokio::task::yield_now().await;
                if fails && selectors.len() > 1 {
                    return Err("no answer");
                }
                Ok(selectors.iter().map(number_of).collect())
            })
        };
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(look(true))).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        drop(stuck);
        let mut answers = join_all(waiting).await;
        answers.sort_unstable();
        assert_eq!(answers, [Ok(7), Ok(7), Err("no answer")]);
        assert!(strays.namespaces.lock().is_empty());
    }

    #[test]
    fn a_shared_look_counts_for_each_selector_what_it_selects() {
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

//! Looks that several share: one at a time in a namespace, and who comes meanwhile may have its answer
//! from it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The looks that go on, one for each namespace. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Looks {
    namespaces: Arc<Mutex<HashMap<String, Waiting>>>,
}

/// Those who are told when the look has succeeded.
type Waiting = Vec<oneshot::Sender<()>>;

/// The one who looks in a namespace.
struct Looking<'a> {
    looks: &'a Looks,
    namespace: &'a str,
    has_succeeded: bool,
}

impl Looks {
    /// What is `known`, if need be after a `look` that makes it known, for others as well. While another
    /// goes on in the namespace, that one is waited for.
    pub(super) async fn share<T, E, F>(
        &self,
        namespace: &str,
        known: impl Fn() -> Option<T>,
        look: impl FnOnce() -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        loop {
            if let Some(known) = known() {
                return Ok(known);
            }
            let Some(ended) = self.enter(namespace) else {
                let mut looking = Looking {
                    looks: self,
                    namespace,
                    has_succeeded: false,
                };
                let answer = look().await?;
                looking.has_succeeded = true;
                return Ok(answer);
            };
            if ended.await.is_err() {
                // It failed. Were the next one waited for too, all would wait in a row for a server
                // that does not answer.
                return look().await;
            }
        }
    }

    /// `None` when nobody looks in the namespace: the caller does then.
    fn enter(&self, namespace: &str) -> Option<oneshot::Receiver<()>> {
        let mut namespaces = self.namespaces.lock();
        let Some(waiting) = namespaces.get_mut(namespace) else {
            namespaces.insert(namespace.to_owned(), Waiting::new());
            return None;
        };
        let (sender, ended) = oneshot::channel();
        waiting.push(sender);
        Some(ended)
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        let waiting = self.looks.namespaces.lock().remove(self.namespace);
        for one in waiting.into_iter().flatten() {
            if self.has_succeeded {
                // It may have given up.
                let _ = one.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::convert::Infallible;

    use futures::FutureExt as _;
    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn one_look_answers_for_all_who_were_there_when_it_began() {
        let looks = Looks::default();
        let (there, known) = (Cell::new(10), RefCell::new(Vec::new()));
        let began = Cell::new(0);
        let asked = (0..20).map(|number| {
            let (looks, there, known, began) = (&looks, &there, &known, &began);
            async move {
                let is_known = || known.borrow().contains(&number).then_some(number);
                let look = || async move {
                    began.set(began.get() + 1);
                    let seen: Vec<u32> = (0..there.replace(20)).collect();
                    tokio::task::yield_now().await;
                    known.borrow_mut().extend(seen);
                    Ok::<_, Infallible>(number)
                };
                assert_eq!(looks.share("garden", is_known, look).await, Ok(number));
            }
        });
        join_all(asked).await;
        assert_eq!(began.get(), 2);
        assert!(looks.namespaces.lock().is_empty());
    }

    #[tokio::test]
    async fn after_a_failed_or_abandoned_look_everybody_looks() {
        let looks = Looks::default();
        let nothing = || None::<u32>;
        let stuck = looks.share("garden", nothing, std::future::pending::<Result<_, &str>>);
        let mut stuck = Box::pin(stuck);
        assert!(stuck.as_mut().now_or_never().is_none());
        let began = Cell::new(0);
        let look = || {
            looks.share("garden", nothing, || async {
                began.set(began.get() + 1);
                tokio::task::yield_now().await;
                Err::<u32, _>("no answer")
            })
        };
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(look())).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert_eq!(began.get(), 0);
        drop(stuck);
        assert_eq!(join_all(waiting).await, [Err("no answer"); 3]);
        assert_eq!(began.get(), 3);
        assert!(looks.namespaces.lock().is_empty());
        let found = looks.share("garden", nothing, || async { Ok::<_, &str>(7) });
        assert_eq!(found.await, Ok(7));
    }
}

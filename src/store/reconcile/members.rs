//! Changes of members that were planned or asked for, and what becomes of their refusals.

use std::time::Duration;

use super::cluster::Pass;
use crate::store::dereference::Inputs;
use crate::store::error::StoreError;
use crate::store::members::change::Changer;
use crate::store::members::place::Placed;
use crate::store::members::recovery::{self, Wish};
use atomix_controller::Next;

/// How soon a group is looked at again that was recovered.
const AGAIN: Duration = Duration::from_millis(200);

impl Pass<'_> {
    /// Carries out what was planned for the members.
    pub(super) async fn change_members(
        &self,
        inputs: &Inputs,
        placed: &Placed,
    ) -> Result<Next, StoreError> {
        let changer = Changer {
            context: &self.context,
            owner: self.owner,
            plan: &placed.plan,
            inputs,
            observed: &placed.observed,
        };
        let changed = changer.carry_out(&placed.decision.actions).await;
        let next = changed.next();
        self.reconciler.announce(self.store, changed.events);
        let mut refused = self.reconciler.refused.lock();
        match changed.error {
            None => {
                refused.remove(self.key);
                Ok(next)
            }
            Some(error) => {
                refused.insert(self.key.clone(), error.clone());
                Err(StoreError::Change(error))
            }
        }
    }

    /// Makes groups go on from one member, as a person has asked. What is refused is tried again: a
    /// node waits until it is sure that nobody leads.
    pub(super) async fn recover(
        &self,
        inputs: &Inputs,
        wishes: &[Wish],
    ) -> Result<Next, StoreError> {
        let reconciler = self.reconciler;
        for wish in wishes {
            match recovery::carry_out(&self.context, self.owner, inputs, wish).await {
                Ok(event) => reconciler.announce(self.store, event.into_iter().collect()),
                Err(error) => {
                    let mut refused = reconciler.refused.lock();
                    refused.insert(self.key.clone(), error.clone());
                    return Err(StoreError::Change(error));
                }
            }
        }
        reconciler.refused.lock().remove(self.key);
        Ok(Next::After(AGAIN))
    }

    /// Why the last pass could not change members, as long as they are to change.
    pub(super) fn refused_change(
        &self,
        placed: Option<&Placed>,
        wishes: &[Wish],
    ) -> Option<StoreError> {
        let is_wanted = !wishes.is_empty() || placed.is_some_and(Placed::has_actions);
        let mut refused = self.reconciler.refused.lock();
        if !is_wanted {
            refused.remove(self.key);
        }
        refused.get(self.key).cloned().map(StoreError::Change)
    }
}

//! A Store that was changed again and again has what a new Store of its specification would have.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::end_state::made_for;
use atomix_operator_tests::resources;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::wait::until;
use serde_json::json;

use super::PATIENCE;

/// A name that no specification holds.
const FRESH: &str = "daffodil";

/// Makes a Store of the same specification, and waits until both have the same objects.
pub(super) async fn expect_alike(bed: &TestBed, name: &str) -> Result<()> {
    let store = bed.stores().get(name).await?;
    let mut spec = store.data["spec"].clone();
    // It stays when it is not said any more.
    let factor = store.data.pointer("/status/replicationFactor");
    spec["multiRaft"]["replicationFactor"] = factor.context("it has no factor")?.clone();
    let fresh = json!({
        "apiVersion": "atomix.io/v1beta1",
        "kind": "Store",
        "metadata": {"name": FRESH},
        "spec": spec,
    });
    resources::create(&bed.stores(), fresh).await?;
    until("a fresh Store to have the same", PATIENCE, async || {
        let old = objects_of(bed, name, name).await?;
        let new = objects_of(bed, FRESH, name).await?;
        ensure!(
            old.len() >= 3 && old == new,
            "only that which was changed has {:#?}\nonly the fresh one has {:#?}",
            old.difference(&new),
            new.difference(&old)
        );
        Ok(())
    })
    .await
    .with_context(|| format!("with {spec}"))
}

async fn objects_of(bed: &TestBed, store: &str, other: &str) -> Result<BTreeSet<String>> {
    let lines = made_for(bed.client(), bed.namespace(), store).await?;
    let names = [FRESH, other];
    let unnamed = lines.into_iter().map(|line| {
        let names = names.iter();
        names.fold(line, |line, name| line.replace(name, "STORE"))
    });
    Ok(unnamed.collect())
}

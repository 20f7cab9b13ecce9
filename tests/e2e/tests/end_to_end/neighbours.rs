//! An application uses the Store of another namespace, whose nodes know it by its certificate, for as
//! long as the Store allows that.

use std::time::Duration;

use anyhow::Result;
use atomix_e2e::cluster::{Cluster, Namespace};
use atomix_e2e::manifests::{edited, sample, store};
use atomix_e2e::wait::until;
use serde_json::json;

const SOON: Duration = Duration::from_secs(120);

/// An application that counts does so several times in this.
const A_WHILE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn an_application_counts_in_the_store_of_another_namespace_while_it_may() -> Result<()> {
    let cluster = Cluster::with_chart().await?;
    let owner = cluster.namespace("owner").await?;
    let guest = cluster.namespace("guest").await?;
    let visit = visit(&cluster, &owner, &guest);
    owner.clone().run(guest.clone().run(visit)).await
}

async fn visit(cluster: &Cluster, owner: &Namespace, guest: &Namespace) -> Result<()> {
    let kept = store("counts", 1, 2);
    let shared = edited(&kept, |store| {
        store["spec"]["allowedNamespaces"] = json!([guest.name()]);
    })?;
    let session = edited(&sample(cluster, "session")?, |session| {
        session["spec"]["store"]["namespace"] = json!(owner.name());
    })?;
    guest.apply(&session).await?;
    guest
        .apply(&sample(cluster, "injected-application")?)
        .await?;
    owner.apply(&kept).await?;
    let forbidden = Some("StoreForbidden");
    guest
        .condition("Session", "visits", "Stalled", "True", forbidden, SOON)
        .await?;

    owner.apply(&shared).await?;
    guest
        .condition("Session", "visits", "Ready", "True", None, SOON)
        .await?;
    let counted = guest.counts_beyond("visits", 50, SOON).await?;
    guest.nothing_lost("visits").await?;

    owner.apply(&kept).await?;
    guest
        .condition("Session", "visits", "Stalled", "True", forbidden, SOON)
        .await?;
    until("the application to count no more", SOON, async || {
        let before = guest.tally("visits").await?;
        tokio::time::sleep(A_WHILE).await;
        let after = guest.tally("visits").await?;
        Ok((before.acknowledged == after.acknowledged).then_some(()))
    })
    .await?;

    owner.apply(&shared).await?;
    guest
        .counts_beyond("visits", counted.acknowledged + 50, SOON)
        .await?;
    guest.nothing_lost("visits").await
}

//! A Store that says it belongs to another operator is left alone, until a person says by the command
//! line that it is ours.

use std::time::Duration;

use anyhow::{Result, ensure};
use atomix_e2e::cluster::Cluster;
use atomix_e2e::manifests::{edited, store};
use serde_json::json;

const SOON: Duration = Duration::from_secs(180);
const OPERATOR: &str = "atomix.io/operator";

#[tokio::test]
async fn a_store_of_another_operator_is_taken_over_by_a_persons_word() -> Result<()> {
    let cluster = Cluster::with_chart().await?;
    let namespace = cluster.namespace("take-over").await?;
    namespace
        .clone()
        .run(async {
            let elsewhere = edited(&store("counts", 1, 1), |store| {
                store["metadata"]["annotations"] = json!({OPERATOR: "elsewhere/atomix"});
            })?;
            namespace.apply(&elsewhere).await?;
            let left_alone = Some("ManagedByOther");
            let message = namespace
                .condition("Store", "counts", "Ready", "False", left_alone, SOON)
                .await?;
            ensure!(
                message.contains("elsewhere/atomix") && message.contains("take-over"),
                "{message}"
            );
            ensure!(namespace.storage_pods().await?.is_empty(), "it has pods");

            let command = ["store", "take-over", "counts", "--yes"];
            let said = namespace.kubectl_atomix(&command)?;
            ensure!(
                said.contains("elsewhere/atomix") && said.contains("annotated"),
                "{said}"
            );
            namespace
                .condition("Store", "counts", "Ready", "True", None, SOON)
                .await?;
            let again = namespace.kubectl_atomix(&command)?;
            ensure!(again.contains("already"), "{again}");
            Ok(())
        })
        .await
}

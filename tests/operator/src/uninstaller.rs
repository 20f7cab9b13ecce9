//! The uninstaller in this process, as the release's Job runs it: killed or refused at any call, and then
//! run again.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use atomix_controller::metrics::Metrics;
use atomix_operator::Scope;
use atomix_operator::uninstall::uninstall;
use kube::Client;
use tokio::task::spawn_blocking;

use crate::api_server::ApiServer;
use crate::deployed::{DEPLOYMENT, Deployed};
use crate::fault::{Disturbance, Gate, Recorded, WatchedApi};
use crate::invariants::Guard;
use crate::operator_under_test::watched_client;
use crate::test_bed::TestBed;
use crate::wait::until;
use crate::workload::LIMIT;

/// How often a run that met trouble may be tried: more often than there are calls.
const TRIES: usize = 30;

/// How an uninstaller is run.
#[derive(Clone, Debug)]
pub struct Uninstaller {
    server: ApiServer,
    scope: Scope,
    namespace: String,
    deployment: String,
}

/// What uninstalling came to, with all its runs.
#[derive(Clone, Debug, Default)]
pub struct Uninstalled {
    /// All calls.
    pub calls: Vec<Recorded>,
    /// Where a run was killed, or stood still while another one went past it.
    pub crashed_at: Option<String>,
    /// How often a call met trouble.
    pub troubled: usize,
    /// How many objects the last run let go of.
    pub released: usize,
}

impl Uninstaller {
    /// Of these operators and all that they serve.
    pub fn of(bed: &TestBed, deployed: &Deployed, scope: Scope) -> Self {
        Self {
            server: bed.server().clone(),
            scope,
            namespace: deployed.namespace().to_owned(),
            deployment: DEPLOYMENT.to_owned(),
        }
    }

    /// The same of a Deployment that is not there.
    #[must_use]
    pub fn without_deployment(mut self) -> Self {
        self.deployment = "nothing".to_owned();
        self
    }

    /// Uninstalls, through this disturbance: a run that it ends is followed by another one.
    ///
    /// # Errors
    /// When a run fails without having met trouble, or no run gets to its end.
    pub async fn run(&self, disturbance: Option<Disturbance>) -> Result<Uninstalled> {
        let mut gate = Gate::new(disturbance);
        let mut all = Uninstalled::default();
        for _ in 0..TRIES {
            let troubled = gate.troubled();
            let ended = self.run_once(&gate, &mut all).await;
            all.troubled = all.troubled.max(gate.troubled());
            match ended {
                Ok(Some(released)) => {
                    all.released = released;
                    all.add(&gate);
                    return Ok(all);
                }
                Ok(None) => {
                    all.add(&gate);
                    gate = Gate::new(None);
                }
                // What a call met, the next run does not.
                Err(_) if gate.troubled() > troubled => {}
                Err(error) => return Err(error),
            }
        }
        bail!("{TRIES} runs of the uninstaller failed")
    }

    /// `None` = it was killed.
    async fn run_once(&self, gate: &Gate, all: &mut Uninstalled) -> Result<Option<usize>> {
        let (uninstaller, its_gate) = (self.clone(), gate.clone());
        let running = std::thread::Builder::new()
            .name("uninstaller".to_owned())
            .spawn(move || uninstaller.live(&its_gate))?;
        until_it_ends_or_stands_still(&running, gate).await?;
        if gate.is_paused() {
            let another = Gate::new(None);
            let passed = Box::pin(self.run_once(&another, all)).await;
            passed.context("the one that went past")?;
            all.add(&another);
            gate.wake();
            until_it_ends_or_stands_still(&running, gate).await?;
        }
        let ended = spawn_blocking(|| running.join()).await?;
        ended.map_err(|_| anyhow!("the uninstaller's thread panicked"))?
    }

    fn live(&self, gate: &Gate) -> Result<Option<usize>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let client = self.client(gate)?;
            tokio::select! {
                () = gate.ended().cancelled() => Ok(None),
                released = uninstall(&client, &self.scope, &self.namespace, &self.deployment) =>
                    Ok(Some(released?)),
            }
        })
    }

    fn client(&self, gate: &Gate) -> Result<Client> {
        // It ends no pod and no claim.
        let guard = Guard::new(self.server.client(), Arc::new(HashMap::new));
        let layer = WatchedApi::new(gate.clone(), guard, None, None);
        watched_client(&self.server, &layer, &Metrics::default())
    }
}

impl Uninstalled {
    fn add(&mut self, gate: &Gate) {
        self.calls.extend(gate.calls());
        self.crashed_at = self.crashed_at.take().or(gate.crashed_at());
    }
}

async fn until_it_ends_or_stands_still<T>(running: &JoinHandle<T>, gate: &Gate) -> Result<()> {
    until("the uninstaller to end", LIMIT * 2, async || {
        let goes_on = !running.is_finished() && !gate.is_paused();
        ensure!(!goes_on, "it made the calls {:?}", gate.calls());
        Ok(())
    })
    .await
}

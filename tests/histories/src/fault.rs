//! What goes wrong during a run: drawn from its seed, carried out on real processes, written down with
//! the time for which it lasted.

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde::Serialize;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::history::Clock;
use crate::link::Passage;

/// What is done to nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Injury {
    /// SIGKILL; started again afterwards.
    Kill,
    /// SIGSTOP.
    Stop,
    /// Its connections to and from other nodes end.
    Cut,
    /// What it sends to other nodes, and they to it, arrives late.
    Silence,
    /// It does not reach the others, which reach it.
    Mute,
    /// The others do not reach it.
    Deafen,
}

/// To which nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// That leads a partition.
    Leader(u32),
    Any,
    /// All but one.
    Majority,
    All,
}

/// What is done to a sidecar meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SidecarInjury {
    Kill,
    Stop,
}

#[derive(Debug, Clone, Copy)]
struct Fault {
    injury: Injury,
    target: Target,
    /// Whether sidecars do not reach the nodes either, where that is not the injury anyhow.
    from_sidecars: bool,
    sidecar: Option<(u8, SidecarInjury)>,
    lasts: Duration,
    /// Before the next one.
    rest: Duration,
}

impl Fault {
    fn draw(random: &mut StdRng, cluster: &Cluster) -> Self {
        let injuries = [
            (Injury::Kill, 6),
            (Injury::Stop, 4),
            (Injury::Cut, 3),
            (Injury::Silence, 3),
            (Injury::Mute, 1),
            (Injury::Deafen, 1),
        ];
        let leads = Target::Leader(random.random_range(1..=cluster.size.partitions));
        let targets = [
            (leads, 10),
            (Target::Any, 5),
            (Target::Majority, 2),
            (Target::All, 1),
        ];
        let injury = one_of(random, &injuries).unwrap_or(Injury::Kill);
        let target = one_of(random, &targets).unwrap_or(Target::Any);
        // A leader that is back before the others have elected one is a case of its own.
        let is_short = injury == Injury::Kill && random.random_bool(0.5);
        let millis = if is_short { 0..=150 } else { 300..=3_500 };
        Self {
            injury,
            target,
            from_sidecars: random.random_bool(0.4),
            sidecar: sidecar(random, cluster.size.sidecars),
            lasts: Duration::from_millis(random.random_range(millis)),
            rest: Duration::from_millis(random.random_range(300..=2_500)),
        }
    }
}

fn one_of<T: Copy>(random: &mut StdRng, choices: &[(T, u32)]) -> Option<T> {
    let chosen = choices.choose_weighted(random, |(_, weight)| *weight);
    chosen.ok().map(|(choice, _)| *choice)
}

fn sidecar(random: &mut StdRng, sidecars: u8) -> Option<(u8, SidecarInjury)> {
    if sidecars == 0 || !random.random_bool(0.25) {
        return None;
    }
    let injury = if random.random_bool(0.7) {
        SidecarInjury::Kill
    } else {
        SidecarInjury::Stop
    };
    Some((random.random_range(0..sidecars), injury))
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = match self.injury {
            Injury::Kill => "kill",
            Injury::Stop => "stop",
            Injury::Cut => "cut",
            Injury::Silence => "silence",
            Injury::Mute => "mute",
            Injury::Deafen => "deafen",
        };
        match self.target {
            Target::Leader(partition) => write!(formatter, "{done} the leader of {partition}")?,
            Target::Any => write!(formatter, "{done} a node")?,
            Target::Majority => write!(formatter, "{done} all but one")?,
            Target::All => write!(formatter, "{done} all")?,
        }
        let parts = !matches!(self.injury, Injury::Kill | Injury::Stop);
        if parts && self.from_sidecars {
            write!(formatter, ", also from sidecars")?;
        }
        match self.sidecar {
            Some((number, SidecarInjury::Kill)) => write!(formatter, ", kill sidecar {number}"),
            Some((number, SidecarInjury::Stop)) => write!(formatter, ", stop sidecar {number}"),
            None => Ok(()),
        }
    }
}

/// One that was there.
#[derive(Debug, Serialize)]
struct Line {
    fault: String,
    nodes: Vec<u8>,
    begin: u64,
    end: u64,
}

/// Makes things go wrong until then, one after the other; everything runs again when it returns. Says
/// how many there were.
pub(crate) async fn disturb(
    cluster: &mut Cluster,
    random: &mut StdRng,
    clock: Clock,
    until: Instant,
    file: &Path,
) -> anyhow::Result<usize> {
    let mut file = std::fs::File::create(file)?;
    let mut count = 0;
    while Instant::now() < until {
        cluster.is_well()?;
        let fault = Fault::draw(random, cluster);
        let nodes = targets(&fault, cluster, random).await;
        let begin = clock.now();
        begin_fault(&fault, &nodes, cluster)?;
        tokio::time::sleep(fault.lasts).await;
        cluster.restore()?;
        let line = Line {
            fault: fault.to_string(),
            nodes,
            begin,
            end: clock.now(),
        };
        println!(
            "{:7.2} s  {} {:?}, {} ms",
            Duration::from_nanos(begin).as_secs_f64(),
            line.fault,
            line.nodes,
            fault.lasts.as_millis()
        );
        serde_json::to_writer(&mut file, &line)?;
        writeln!(file)?;
        count += 1;
        tokio::time::sleep(fault.rest).await;
    }
    cluster.is_well()?;
    cluster.until_serving().await?;
    Ok(count)
}

/// The nodes that a fault is for; a partition without a leader has any one taken.
async fn targets(fault: &Fault, cluster: &Cluster, random: &mut StdRng) -> Vec<u8> {
    let all = 0..cluster.size.nodes;
    let any = random.random_range(all.clone());
    match fault.target {
        Target::Leader(partition) => vec![cluster.leader(partition).await.unwrap_or(any)],
        Target::Any => vec![any],
        Target::Majority => all.filter(|node| *node != any).collect(),
        Target::All => all.collect(),
    }
}

fn begin_fault(fault: &Fault, nodes: &[u8], cluster: &mut Cluster) -> anyhow::Result<()> {
    if let Some((number, injury)) = fault.sidecar
        && let Some(sidecar) = cluster.sidecars.get_mut(usize::from(number))
    {
        match injury {
            SidecarInjury::Kill => sidecar.kill()?,
            // Never for as long as a session lasts, or its locks are lost and that is right.
            SidecarInjury::Stop => sidecar.stop()?,
        }
    }
    for number in nodes {
        let Some(node) = cluster.nodes.get_mut(usize::from(*number)) else {
            continue;
        };
        match fault.injury {
            Injury::Kill => node.kill()?,
            Injury::Stop => node.stop()?,
            Injury::Cut | Injury::Silence | Injury::Mute | Injury::Deafen => {
                part(fault, *number, cluster);
            }
        }
    }
    Ok(())
}

/// Parts a node from the others.
fn part(fault: &Fault, number: u8, cluster: &Cluster) {
    let passage = match fault.injury {
        Injury::Silence => Passage::Silent,
        Injury::Kill | Injury::Stop | Injury::Cut | Injury::Mute | Injury::Deafen => {
            Passage::Closed
        }
    };
    for other in 0..cluster.size.nodes {
        if fault.injury != Injury::Deafen
            && let Some(node) = cluster.nodes.get(usize::from(number))
        {
            node.set_way_to(other, passage);
        }
        if fault.injury != Injury::Mute
            && let Some(other) = cluster.nodes.get(usize::from(other))
        {
            other.set_way_to(number, passage);
        }
    }
    if fault.from_sidecars {
        for sidecar in &cluster.sidecars {
            sidecar.set_way_to(number, passage);
        }
    }
}

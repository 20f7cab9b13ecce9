//! `atomix-node recover`: on the data directory of a node that does not run.

use std::io::Write;
use std::path::PathBuf;

use atomix_raft::{Engine, EngineOptions, MemberId, OpenError, Outlook, PartitionId, RecoverError};
use clap::Parser;
use thiserror::Error;

use super::{fresh_member, notice};

/// Makes the member in this data directory the only voter of a partition that has lost its quorum
/// for good. For disasters: what only the lost members had is gone.
///
/// Says what it would do and changes nothing, unless --yes is given. The node must not run. In
/// Kubernetes, use `kubectl atomix store recover`, which needs no access to the disk.
///
/// Before: make sure that the disks of the other members are gone for good. A majority of them that
/// comes back would be a second group of the same data. Of several members that are left, choose the
/// one with the highest last entry.
///
/// After: start the node. The partition serves again, and its member has a new id. Then add members
/// by Join; the operator does so by itself.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "atomix-node recover",
    bin_name = "atomix-node recover",
    version
)]
pub struct RecoverOptions {
    /// Data directory of the node.
    #[arg(long, env = "ATOMIX_DATA_DIR")]
    pub data_dir: PathBuf,

    /// The partition.
    #[arg(long)]
    pub partition: u32,

    /// Does it, instead of only saying what would be done.
    #[arg(long)]
    pub yes: bool,
}

/// Why nothing was recovered.
#[derive(Debug, Error)]
pub enum OfflineError {
    /// A new one would be made.
    #[error("{} is no data directory of a node", .0.display())]
    NoNode(PathBuf),
    /// It cannot be used, or a node has it open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is nothing to recover.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// Nobody reads what it says.
    #[error("cannot write the report")]
    Report(#[from] std::io::Error),
}

/// Says what would be done, and does it if the options say so.
///
/// # Errors
/// Why not; then nothing was changed.
pub async fn recover(
    options: &RecoverOptions,
    report: &mut impl Write,
) -> Result<(), OfflineError> {
    if !options.data_dir.join("node-id").is_file() {
        return Err(OfflineError::NoNode(options.data_dir.clone()));
    }
    let engine = Engine::open(EngineOptions::new(&options.data_dir))?;
    let partition = PartitionId(options.partition);
    let outlook = engine.look_at_lost(partition).await?;
    describe(&outlook, report)?;
    if !options.yes {
        writeln!(
            report,
            "nothing was changed: give --yes to make this member the only voter"
        )?;
        return Ok(());
    }
    let member = outlook.member;
    let record = engine
        .recover_group(partition, member, fresh_member(), notice())
        .await?;
    writeln!(
        report,
        "recovered: the only voter of partition {partition} is now member {}; start the node",
        record.member_id
    )?;
    Ok(())
}

fn describe(outlook: &Outlook, report: &mut impl Write) -> std::io::Result<()> {
    let Outlook {
        partition,
        member,
        membership,
        last,
        committed,
    } = outlook;
    let role = if membership.voters.contains(member) {
        "a voter"
    } else {
        "no voter, so it may lack what was acknowledged"
    };
    writeln!(
        report,
        "partition {partition}: member {member} is here, {role}"
    )?;
    if let Some(last) = last {
        writeln!(report, "  last entry: {} of term {}", last.index, last.term)?;
    }
    if let Some(committed) = committed {
        writeln!(report, "  known to be committed: up to {}", committed.index)?;
    }
    let is_voter =
        |id: &MemberId| membership.voters.contains(id) || membership.outgoing_voters.contains(id);
    for (id, address) in outlook.others() {
        let role = if is_voter(&id) { "voter" } else { "learner" };
        writeln!(
            report,
            "  given up: {role} {id} on node {:016x} at {}",
            address.node_id.0, address.address
        )?;
    }
    Ok(())
}

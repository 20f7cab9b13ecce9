//! The snapshot section of the kind `election`, version 1: the term, then the candidates in order.

use std::io;

use prost::Message;

use crate::error::SnapshotError;
use crate::ids::{OperationId, Owner, OwnerNumber, Sequence, SessionId};
use crate::section::{SectionReader, SectionWriter};

use super::Election;
use super::line::Candidate;

#[derive(Clone, PartialEq, Message)]
struct HeadRecord {
    #[prost(uint64, tag = "1")]
    term: u64,
}

#[derive(Clone, PartialEq, Message)]
struct CandidateRecord {
    #[prost(string, tag = "1")]
    name: String,
    /// By owner.
    #[prost(message, repeated, tag = "2")]
    entries: Vec<EntryRecord>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct EntryRecord {
    #[prost(uint64, tag = "1")]
    session: u64,
    #[prost(uint64, tag = "2")]
    owner: u64,
    /// Of the operation that entered the candidate; it is of the same session.
    #[prost(uint64, tag = "3")]
    sequence: u64,
}

pub(super) fn write(election: &Election, section: &mut SectionWriter<'_>) -> io::Result<()> {
    section.record(&HeadRecord {
        term: election.term,
    })?;
    for candidate in election.line.iter() {
        let entries = candidate
            .entries
            .iter()
            .map(|(owner, operation)| EntryRecord {
                session: owner.session.0,
                owner: owner.number.0,
                sequence: operation.sequence.0,
            });
        section.record(&CandidateRecord {
            name: (*candidate.name).to_owned(),
            entries: entries.collect(),
        })?;
    }
    Ok(())
}

pub(super) fn read(section: &mut SectionReader<'_>) -> Result<Election, SnapshotError> {
    let head: HeadRecord = section.required()?;
    let mut election = Election {
        term: head.term,
        ..Election::default()
    };
    while let Some(record) = section.record::<CandidateRecord>()? {
        if record.name.is_empty() || election.line.contains(&record.name) {
            return Err(SnapshotError::damaged(
                "a candidate has no name, or stands twice",
            ));
        }
        let mut candidate = Candidate::new(record.name.into());
        for entry in record.entries {
            let session = SessionId(entry.session);
            let owner = Owner {
                session,
                number: OwnerNumber(entry.owner),
            };
            let sequence = Sequence(entry.sequence);
            let operation = OperationId { session, sequence };
            candidate.entries.insert((owner, operation));
        }
        if candidate.entries.is_empty() {
            return Err(SnapshotError::damaged("a candidate belongs to nobody"));
        }
        election.line.push(candidate);
    }
    Ok(election)
}

//! Reads every byte of the log before raft-engine opens it, and changes nothing.
//!
//! raft-engine's own recovery cuts a file where it first finds damage, acknowledged entries after
//! it included. Here every batch is on disk before the next one is written, so only the very last
//! one can be torn by a crash: whatever follows a damaged batch proves that the damage came later,
//! and the directory is refused. So is one whose moved entries end before their mark: a crash can
//! tear only what is not yet the only copy.
//!
//! A file is `header, batch…`, a batch `length << 8 | compression: u64, footer offset: u64,
//! [entries, crc32], footer, crc32 ^ file number`; integers big-endian, checksums little-endian.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::mark;

/// Where recovery may cut which file.
pub(crate) type Cuts = HashMap<PathBuf, usize>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
}

const MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
const HEADER_LENGTH: usize = MAGIC.len() + 2 * size_of::<u64>();
const FORMAT_VERSION: u64 = 2;
const ALIGNMENT: u64 = 0;
const BATCH_HEADER_LENGTH: usize = 2 * size_of::<u64>();
const CHECKSUM_LENGTH: usize = size_of::<u32>();

/// The queues of raft-engine: new entries, and live ones that were moved out of old files.
const QUEUES: [&str; 2] = [".raftlog", REWRITE_QUEUE];
pub(super) const REWRITE_QUEUE: &str = ".rewrite";

/// Checks the log in `directory`, which need not exist.
pub(crate) fn verify(directory: &Path) -> Result<Cuts, VerifyError> {
    let mut cuts = Cuts::new();
    let mark = mark::read(directory).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => damaged(directory, source.to_string()),
        _ => VerifyError::Io {
            path: directory.to_owned(),
            source,
        },
    })?;
    for queue in QUEUES {
        let files = list(directory, queue)?;
        let mark = mark.filter(|_| queue == REWRITE_QUEUE);
        for window in files.windows(2) {
            if let [(before, _), (after, path)] = window
                && before + 1 != *after
            {
                return Err(damaged(
                    path,
                    format!("the file before it is missing ({before} precedes {after})"),
                ));
            }
        }
        let last = files.last().map(|(number, _)| *number);
        if let Some(mark) = mark
            && last.is_none_or(|last| last < mark.file)
        {
            return Err(damaged(
                directory,
                format!("file {} of moved entries is missing", mark.file),
            ));
        }
        for (number, path) in files {
            let bytes = fs::read(&path).map_err(|source| VerifyError::Io {
                path: path.clone(),
                source,
            })?;
            let intact = intact_length(&bytes, number);
            if let Some(mark) = mark
                && number == mark.file
                && (intact as u64) < mark.length
            {
                return Err(damaged(
                    &path,
                    format!(
                        "it is whole up to byte {intact} only, but the originals of what was moved \
                         to it up to byte {} are deleted",
                        mark.length
                    ),
                ));
            }
            // Without a header a file is never intact: recovery cuts an empty one, too.
            if intact == bytes.len() && !bytes.is_empty() {
                continue;
            }
            if Some(number) != last {
                return Err(damaged(
                    &path,
                    format!("damaged at byte {intact}, and another file follows"),
                ));
            }
            if let Some(reason) = evidence_after(&bytes, intact, number) {
                return Err(damaged(
                    &path,
                    format!("damaged at byte {intact}, but {reason}"),
                ));
            }
            cuts.insert(path, intact);
        }
    }
    Ok(cuts)
}

fn damaged(path: &Path, reason: String) -> VerifyError {
    VerifyError::Damaged {
        path: path.to_owned(),
        reason,
    }
}

fn list(directory: &Path, queue: &str) -> Result<Vec<(u64, PathBuf)>, VerifyError> {
    let io_error = |source| VerifyError::Io {
        path: directory.to_owned(),
        source,
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error)?;
        let path = entry.path();
        if let Some(number) = number_of(&path, queue) {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files)
}

/// The number of a queue's file; `None` for any other.
pub(super) fn number_of(path: &Path, queue: &str) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(queue)?.parse().ok()
}

/// Up to where the file is a header and whole batches.
fn intact_length(bytes: &[u8], file_number: u64) -> usize {
    if !has_header(bytes) {
        return 0;
    }
    let mut position = HEADER_LENGTH;
    while let Some(length) = batch_at(bytes, position, file_number) {
        position += length;
    }
    position
}

fn has_header(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
        && read_u64(bytes, MAGIC.len()) == Some(FORMAT_VERSION)
        && read_u64(bytes, MAGIC.len() + size_of::<u64>()) == Some(ALIGNMENT)
}

/// The length of the valid batch that begins at `position`.
fn batch_at(bytes: &[u8], position: usize, file_number: u64) -> Option<usize> {
    let (length, footer_offset) = batch_header_at(bytes, position)?;
    let batch = bytes.get(position..position.checked_add(length)?)?;
    let entries = batch.get(BATCH_HEADER_LENGTH..footer_offset)?;
    if !entries.is_empty() && !checksum_matches(entries, 0) {
        return None;
    }
    // The low half of the number signs the batches of a file.
    #[allow(clippy::cast_possible_truncation)]
    let signature = file_number as u32;
    checksum_matches(batch.get(footer_offset..)?, signature).then_some(length)
}

/// Length and footer offset of what looks like a batch at `position`.
fn batch_header_at(bytes: &[u8], position: usize) -> Option<(usize, usize)> {
    let length_and_compression = read_u64(bytes, position)?;
    let footer_offset = usize::try_from(read_u64(bytes, position + size_of::<u64>())?).ok()?;
    let length = usize::try_from(length_and_compression >> 8).ok()?;
    let uncompressed = length_and_compression & 0xff == 0;
    let plausible = footer_offset >= BATCH_HEADER_LENGTH && footer_offset < length;
    (uncompressed && plausible).then_some((length, footer_offset))
}

fn checksum_matches(bytes: &[u8], signature: u32) -> bool {
    let Some((content, checksum)) = bytes.split_last_chunk::<CHECKSUM_LENGTH>() else {
        return false;
    };
    !content.is_empty() && crc32fast::hash(content) == u32::from_le_bytes(*checksum) ^ signature
}

fn read_u64(bytes: &[u8], position: usize) -> Option<u64> {
    let bytes = bytes.get(position..)?.first_chunk()?;
    Some(u64::from_be_bytes(*bytes))
}

/// Why the damage at `position` cannot be a last batch torn by a crash.
fn evidence_after(bytes: &[u8], position: usize, file_number: u64) -> Option<String> {
    if position == 0 {
        // A file gets its header, synced, before its first batch.
        let batches = bytes.get(HEADER_LENGTH..).unwrap_or_default();
        return batches
            .iter()
            .any(|byte| *byte != 0)
            .then(|| "batches follow the damaged header".to_owned());
    }
    let rest = bytes.get(position..).unwrap_or_default();
    if rest.iter().all(|byte| *byte == 0) {
        return None;
    }
    if let Some((length, _)) = batch_header_at(bytes, position)
        && let Some(behind) = bytes.get(position.saturating_add(length)..)
        && behind.iter().any(|byte| *byte != 0)
    {
        return Some("something was written behind that batch".to_owned());
    }
    (position + 1..bytes.len())
        .find(|later| batch_at(bytes, *later, file_number).is_some())
        .map(|later| format!("a whole batch follows at byte {later}"))
}

//! What the sidecar must remember over a restart: its connections and routes, in one small file.
//!
//! The file is replaced as a whole (temporary file, fsync, rename, fsync of the folder) and readable
//! by its owner only, because configurations may hold credentials. A file that is damaged counts as
//! none: the operator compares and corrects.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use atomix_proto::runtime::v1::{ConnectRequest, Route};
use prost::Message as _;
use thiserror::Error;

const FILE_NAME: &str = "state";
const TEMPORARY_NAME: &str = "state.new";
/// What the file begins with; the number is the format's.
const MAGIC: &[u8; 8] = b"ATXRT\0\0\x01";
const HEADER: usize = MAGIC.len() + 4;
const OWNER_ONLY: u32 = 0o600;

/// What is remembered.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SavedState {
    /// The connections, as they were asked for or configured last.
    #[prost(message, repeated, tag = "1")]
    pub connections: Vec<ConnectRequest>,
    /// The routing table.
    #[prost(message, repeated, tag = "2")]
    pub routes: Vec<Route>,
    /// The highest operator term seen.
    #[prost(uint64, tag = "3")]
    pub operator_term: u64,
    /// The operator whose term it is; empty before any.
    #[prost(string, tag = "4")]
    pub operator_id: String,
}

/// Why the state could not be saved or read.
#[derive(Debug, Error)]
pub enum StateFileError {
    /// The disk refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The content is not what was written.
    #[error("the state file {path} is damaged: {problem}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// The state file of one sidecar.
#[derive(Debug, Clone)]
pub struct StateFile {
    folder: PathBuf,
}

impl StateFile {
    /// The state file in this folder, which is made if it is not there.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(folder: &Path) -> Result<Self, StateFileError> {
        fs::create_dir_all(folder).map_err(failed("create folder", folder))?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Reads what was saved last; `None` when nothing was.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn load(&self) -> Result<Option<SavedState>, StateFileError> {
        let path = self.folder.join(FILE_NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        decode(&bytes)
            .map(Some)
            .map_err(|problem| StateFileError::Damaged { path, problem })
    }

    /// Replaces what is saved. When this returns, it survives a crash.
    ///
    /// # Errors
    /// When the disk refuses; what was saved before is kept.
    pub fn save(&self, state: &SavedState) -> Result<(), StateFileError> {
        let temporary = self.write_temporary(state)?;
        let path = self.folder.join(FILE_NAME);
        fs::rename(&temporary, &path).map_err(failed("replace", &path))?;
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed("sync folder", &self.folder))
    }

    /// Everything of [`Self::save`] before the rename.
    fn write_temporary(&self, state: &SavedState) -> Result<PathBuf, StateFileError> {
        let path = self.folder.join(TEMPORARY_NAME);
        // A leftover could have another mode; it is not written through.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &path)(error));
            }
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(OWNER_ONLY)
            .open(&path)
            .map_err(failed("create", &path))?;
        file.write_all(&encode(state))
            .and_then(|()| file.sync_all())
            .map_err(failed("write", &path))?;
        Ok(path)
    }
}

fn encode(state: &SavedState) -> Vec<u8> {
    let payload = state.encode_to_vec();
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&crc32fast::hash(&payload).to_be_bytes());
    bytes.extend_from_slice(&payload);
    bytes
}

fn decode(bytes: &[u8]) -> Result<SavedState, String> {
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or("it does not begin as a state file of this version")?;
    let (checksum, payload) = rest.split_first_chunk::<4>().ok_or("it is too short")?;
    if u32::from_be_bytes(*checksum) != crc32fast::hash(payload) {
        return Err("its checksum is wrong".to_owned());
    }
    SavedState::decode(payload).map_err(|error| error.to_string())
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateFileError {
    let path = path.to_owned();
    move |source| StateFileError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt as _;

    use atomix_proto::runtime::v1::StoreId;

    use super::*;

    fn state(name: &str) -> SavedState {
        SavedState {
            connections: vec![ConnectRequest {
                store_id: Some(StoreId {
                    namespace: "team".into(),
                    name: name.into(),
                }),
                config: r#"{"service":"x"}"#.into(),
                ..ConnectRequest::default()
            }],
            routes: vec![Route::default()],
            operator_term: 3,
            operator_id: "team/operator".into(),
        }
    }

    #[test]
    fn what_is_saved_is_read_again_and_only_the_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::open(&folder.path().join("deeper")).unwrap();
        assert_eq!(file.load().unwrap(), None);
        file.save(&state("a")).unwrap();
        file.save(&state("b")).unwrap();
        assert_eq!(file.load().unwrap(), Some(state("b")));
        let path = folder.path().join("deeper").join(FILE_NAME);
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, OWNER_ONLY);
    }

    #[test]
    fn a_crash_between_writing_and_renaming_keeps_what_was_saved_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::open(folder.path()).unwrap();
        file.save(&state("before")).unwrap();
        let temporary = file.write_temporary(&state("after")).unwrap();
        assert_eq!(file.load().unwrap(), Some(state("before")));

        // A torn temporary file, readable by all, does not disturb the next start.
        fs::write(&temporary, b"torn").unwrap();
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o644)).unwrap();
        let file = StateFile::open(folder.path()).unwrap();
        assert_eq!(file.load().unwrap(), Some(state("before")));
        file.save(&state("after")).unwrap();
        assert_eq!(file.load().unwrap(), Some(state("after")));
        let mode = fs::metadata(folder.path().join(FILE_NAME))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, OWNER_ONLY);
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::open(folder.path()).unwrap();
        file.save(&state("a")).unwrap();
        let path = folder.path().join(FILE_NAME);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, whole.get(..length).unwrap()).unwrap();
            assert!(
                matches!(file.load(), Err(StateFileError::Damaged { .. })),
                "{length}"
            );
        }
        for index in 0..whole.len() {
            let mut flipped = whole.clone();
            *flipped.get_mut(index).unwrap() ^= 0x10;
            fs::write(&path, &flipped).unwrap();
            assert!(
                matches!(file.load(), Err(StateFileError::Damaged { .. })),
                "{index}"
            );
        }
    }
}

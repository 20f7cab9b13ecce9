//! What a power cut leaves of a data directory: all changes are recorded, and any moment of the
//! recording is turned into the directories that a disk may hold then.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use atomix_raft::{DiskChange, DiskFaults};
use parking_lot::Mutex;

#[derive(Debug, Clone)]
pub(crate) enum Change {
    DirectoryCreated(PathBuf),
    Created(PathBuf),
    Written(PathBuf, usize, Vec<u8>),
    Resized(PathBuf, usize),
    Synced(PathBuf),
    Renamed(PathBuf, PathBuf),
    Removed(PathBuf),
    DirectorySynced(PathBuf),
}

impl Change {
    /// True for what happens to files whose name ends like this.
    pub(crate) fn is_of(&self, suffix: &str) -> bool {
        let (Self::DirectoryCreated(path)
        | Self::Created(path)
        | Self::Written(path, ..)
        | Self::Resized(path, _)
        | Self::Synced(path)
        | Self::Renamed(_, path)
        | Self::Removed(path)
        | Self::DirectorySynced(path)) = self;
        path.to_string_lossy().ends_with(suffix)
    }
}

/// Records what happens below a directory.
pub(crate) struct Recorder {
    root: PathBuf,
    changes: Mutex<Vec<Change>>,
}

impl Recorder {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            changes: Mutex::default(),
        }
    }

    /// How much has happened.
    pub(crate) fn position(&self) -> usize {
        self.changes.lock().len()
    }

    pub(crate) fn changes(&self) -> Vec<Change> {
        self.changes.lock().clone()
    }
}

impl DiskFaults for Recorder {
    fn changed(&self, change: DiskChange<'_>) {
        let name = |path: &Path| path.strip_prefix(&self.root).unwrap_or(path).to_owned();
        let size = |number: u64| usize::try_from(number).expect("a small file");
        let change = match change {
            DiskChange::DirectoryCreated(path) => Change::DirectoryCreated(name(path)),
            DiskChange::Created(path) => Change::Created(name(path)),
            DiskChange::Written {
                path,
                offset,
                bytes,
            } => Change::Written(name(path), size(offset), bytes.to_vec()),
            DiskChange::Resized { path, length } => Change::Resized(name(path), size(length)),
            DiskChange::Synced(path) => Change::Synced(name(path)),
            DiskChange::Renamed { from, to } => Change::Renamed(name(from), name(to)),
            DiskChange::Removed(path) => Change::Removed(name(path)),
            DiskChange::DirectorySynced(path) => Change::DirectorySynced(name(path)),
        };
        self.changes.lock().push(change);
    }
}

/// What a disk does with that which was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// All of it is gone.
    Everything,
    /// Names are on disk, what was written is not.
    Data,
    /// What was written is on disk, names are not.
    Names,
    /// Of what was written only the last is on disk.
    AllButTheLastWrite,
    /// Half of the last write is missing.
    HalfOfTheLastWrite,
}

pub(crate) const LOSSES: [Loss; 5] = [
    Loss::Everything,
    Loss::Data,
    Loss::Names,
    Loss::AllButTheLastWrite,
    Loss::HalfOfTheLastWrite,
];

/// Files with their content; directories have none.
pub(crate) type Image = BTreeMap<PathBuf, Option<Vec<u8>>>;

#[derive(Debug, Clone)]
enum Edit {
    Write(usize, Vec<u8>),
    Resize(usize),
}

impl Edit {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => {
                let end = offset + bytes.len();
                content.resize(content.len().max(end), 0);
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Resize(length) => content.resize(*length, 0),
        }
    }
}

#[derive(Default)]
struct Inode {
    durable: Vec<u8>,
    unsynced: Vec<Edit>,
}

impl Inode {
    fn content(&self, loss: Loss) -> Vec<u8> {
        let mut content = self.durable.clone();
        let last_write = self
            .unsynced
            .iter()
            .rposition(|edit| matches!(edit, Edit::Write(..)));
        for (number, edit) in self.unsynced.iter().enumerate() {
            let is_last = Some(number) == last_write;
            match (loss, edit) {
                (Loss::Everything | Loss::Data, _) => {}
                (Loss::AllButTheLastWrite, _) if !is_last => {}
                (Loss::HalfOfTheLastWrite, Edit::Write(offset, bytes)) if is_last => {
                    let half = bytes[..bytes.len() / 2].to_vec();
                    Edit::Write(*offset, half).apply(&mut content);
                }
                (_, edit) => edit.apply(&mut content),
            }
        }
        content
    }
}

#[derive(Debug, Clone, Copy)]
enum Node {
    Directory,
    File(usize),
}

/// The disk after some of the changes.
#[derive(Default)]
pub(crate) struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
}

impl Disk {
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::DirectoryCreated(path) => {
                self.names.insert(path.clone(), Node::Directory);
            }
            Change::Created(path) => {
                self.names
                    .insert(path.clone(), Node::File(self.inodes.len()));
                self.inodes.push(Inode::default());
            }
            Change::Written(path, offset, bytes) => {
                let edit = Edit::Write(*offset, bytes.clone());
                self.inode(path).unsynced.push(edit);
            }
            Change::Resized(path, length) => {
                self.inode(path).unsynced.push(Edit::Resize(*length));
            }
            Change::Synced(path) => {
                let inode = self.inode(path);
                for edit in std::mem::take(&mut inode.unsynced) {
                    edit.apply(&mut inode.durable);
                }
            }
            Change::Renamed(from, to) => {
                let node = self.names.remove(from).expect("a file that is known");
                self.names.insert(to.clone(), node);
            }
            Change::Removed(path) => {
                self.names.retain(|name, _| !name.starts_with(path));
            }
            Change::DirectorySynced(directory) => {
                let is_inside = |name: &PathBuf| name.parent() == Some(directory.as_path());
                self.durable_names.retain(|name, _| !is_inside(name));
                let inside = self.names.iter().filter(|(name, _)| is_inside(name));
                self.durable_names
                    .extend(inside.map(|(name, node)| (name.clone(), *node)));
            }
        }
    }

    fn inode(&mut self, path: &Path) -> &mut Inode {
        let Some(Node::File(number)) = self.names.get(path) else {
            panic!("{} is no file", path.display());
        };
        &mut self.inodes[*number]
    }

    pub(crate) fn image(&self, loss: Loss) -> Image {
        let names = match loss {
            Loss::Everything | Loss::Names => &self.durable_names,
            Loss::Data | Loss::AllButTheLastWrite | Loss::HalfOfTheLastWrite => &self.names,
        };
        let is_root = |path: &Path| path == Path::new("");
        let is_whole = |path: &Path| {
            let mut parents = path.ancestors().skip(1);
            parents.all(|parent| is_root(parent) || names.contains_key(parent))
        };
        names
            .iter()
            .filter(|(path, _)| !is_root(path) && is_whole(path))
            .map(|(path, node)| {
                let content = match node {
                    Node::Directory => None,
                    Node::File(number) => Some(self.inodes[*number].content(loss)),
                };
                (path.clone(), content)
            })
            .collect()
    }
}

/// Every directory that a power cut during the changes may leave, with the latest moment at which
/// it may: the number of changes before, and what was lost. Only moments right after the changes
/// that are `looked_at` count.
pub(crate) fn images(
    changes: &[Change],
    looked_at: impl Fn(&Change) -> bool,
) -> Vec<(Image, usize, Loss)> {
    let mut disk = Disk::default();
    let mut found: BTreeMap<Image, (usize, Loss)> = BTreeMap::new();
    for (before, change) in changes.iter().enumerate() {
        disk.apply(change);
        if looked_at(change) {
            for loss in LOSSES {
                found.insert(disk.image(loss), (before + 1, loss));
            }
        }
    }
    found
        .into_iter()
        .map(|(image, (position, loss))| (image, position, loss))
        .collect()
}

/// Makes the directory of an image.
pub(crate) fn write_image(image: &Image, directory: &Path) {
    std::fs::create_dir_all(directory).expect("a directory");
    for (path, content) in image {
        let path = directory.join(path);
        match content {
            None => std::fs::create_dir_all(path).expect("a directory"),
            Some(bytes) => std::fs::write(path, bytes).expect("a file"),
        }
    }
}

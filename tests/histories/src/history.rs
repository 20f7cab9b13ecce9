//! What is written down of each operation, one line of JSON each, one file for each object.
//!
//! The first line of a file names the object. `tests/porcupine` reads these files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

/// What is kept in memory of a file.
const BUFFER_BYTES: usize = 64 << 10;

/// The one clock of a run: nanoseconds since it began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// How objects are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Use {
    /// A counter that is only added to, so that it tells how often.
    Counter,
    /// A counter that is also set.
    Register,
    Value,
    Map,
    CounterMap,
    MultiMap,
    IndexedMap,
    Set,
    List,
    Lock,
    Election,
}

impl Use {
    pub(crate) const ALL: [Self; 11] = [
        Self::Counter,
        Self::Register,
        Self::Value,
        Self::Map,
        Self::CounterMap,
        Self::MultiMap,
        Self::IndexedMap,
        Self::Set,
        Self::List,
        Self::Lock,
        Self::Election,
    ];

    /// The kind of primitive.
    fn kind(self) -> &'static str {
        match self {
            Self::Counter | Self::Register => "counter",
            Self::Value => "value",
            Self::Map => "map",
            Self::CounterMap => "countermap",
            Self::MultiMap => "multimap",
            Self::IndexedMap => "indexedmap",
            Self::Set => "set",
            Self::List => "list",
            Self::Lock => "lock",
            Self::Election => "election",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            other => other.kind(),
        }
    }
}

#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Arguments {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) number: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) check: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<u32>,
    /// Of an object whose keys belong together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Versioned {
    pub(crate) value: String,
    pub(crate) version: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Reply {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) number: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) previous: Option<Versioned>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) present: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) items: Option<Vec<String>>,
}

/// What became of an operation, for whoever called it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// It was answered.
    Ok,
    /// The primitive refused it, which tells something of its state.
    Refused,
    /// It certainly did not happen.
    Failed,
    /// It may happen at any time, or never.
    Unknown,
}

/// One line of a history.
#[derive(Debug, Serialize)]
pub(crate) struct Record<'a> {
    pub(crate) client: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) key: &'a str,
    pub(crate) method: &'static str,
    pub(crate) arguments: &'a Arguments,
    pub(crate) call: u64,
    #[serde(rename = "return", skip_serializing_if = "Option::is_none")]
    pub(crate) returned: Option<u64>,
    pub(crate) outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reply: Option<&'a Reply>,
}

#[derive(Serialize)]
struct Header<'a> {
    kind: &'static str,
    name: &'a str,
    seed: u64,
}

/// An object and its file.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) used_as: Use,
    pub(crate) name: String,
    path: PathBuf,
    made: Instant,
    /// What is not in the file yet.
    lines: Mutex<Vec<u8>>,
}

impl Object {
    fn create(folder: &Path, used_as: Use, number: usize, seed: u64) -> anyhow::Result<Self> {
        let name = format!("{}-{number}", used_as.name());
        let header = Header {
            kind: used_as.kind(),
            name: &name,
            seed,
        };
        let mut lines = serde_json::to_vec(&header)?;
        lines.push(b'\n');
        Ok(Self {
            used_as,
            path: folder.join(format!("{name}.jsonl")),
            name,
            made: Instant::now(),
            lines: Mutex::new(lines),
        })
    }

    pub(crate) fn record(&self, record: &Record<'_>) -> anyhow::Result<()> {
        let mut lines = self.lines.lock();
        serde_json::to_writer(&mut *lines, record)?;
        lines.push(b'\n');
        if lines.len() < BUFFER_BYTES {
            return Ok(());
        }
        self.append(&mut lines)
    }

    /// Writes what is not in the file yet.
    pub(crate) fn flush(&self) -> anyhow::Result<()> {
        self.append(&mut self.lines.lock())
    }

    fn append(&self, lines: &mut Vec<u8>) -> anyhow::Result<()> {
        let file = File::options().create(true).append(true).open(&self.path);
        let mut file = file.with_context(|| format!("cannot open {}", self.path.display()))?;
        file.write_all(lines)?;
        lines.clear();
        Ok(())
    }
}

/// For how long an object is used: so many operations or so long, whatever is over first. The longer a
/// history, and the more in it is unknown, the longer its check takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lasts {
    pub(crate) operations: u64,
    pub(crate) time: Duration,
}

/// The objects of a run.
#[derive(Debug)]
pub(crate) struct Histories {
    folder: PathBuf,
    seed: u64,
    lasts: Lasts,
    uses: Mutex<BTreeMap<Use, Used>>,
}

#[derive(Debug, Default)]
struct Used {
    /// Operations that were begun on the last object.
    begun: u64,
    objects: Vec<Arc<Object>>,
    tally: BTreeMap<Outcome, u64>,
}

impl Histories {
    pub(crate) fn create(folder: PathBuf, seed: u64, lasts: Lasts) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let uses = Use::ALL.map(|used_as| (used_as, Used::default()));
        Ok(Self {
            folder,
            seed,
            lasts,
            uses: Mutex::new(uses.into()),
        })
    }

    /// The object that the next operation is for.
    pub(crate) fn next(&self, used_as: Use) -> anyhow::Result<Arc<Object>> {
        let mut uses = self.uses.lock();
        let used = uses.entry(used_as).or_default();
        used.begun += 1;
        let Lasts { operations, time } = self.lasts;
        if let Some(last) = used.objects.last()
            && used.begun <= operations
            && last.made.elapsed() < time
        {
            return Ok(Arc::clone(last));
        }
        let number = used.objects.len();
        let object = Arc::new(Object::create(&self.folder, used_as, number, self.seed)?);
        used.objects.push(Arc::clone(&object));
        used.begun = 1;
        Ok(object)
    }

    pub(crate) fn count(&self, used_as: Use, outcome: Outcome) {
        let mut uses = self.uses.lock();
        *uses
            .entry(used_as)
            .or_default()
            .tally
            .entry(outcome)
            .or_default() += 1;
    }

    /// How many operations of a use ended so.
    pub(crate) fn counted(&self, used_as: Use, outcome: Outcome) -> u64 {
        let uses = self.uses.lock();
        let tally = uses.get(&used_as).map(|used| &used.tally);
        let count = tally.and_then(|tally| tally.get(&outcome));
        count.copied().unwrap_or_default()
    }

    /// Operations of a use that told something.
    pub(crate) fn answered(&self, used_as: Use) -> u64 {
        self.counted(used_as, Outcome::Ok) + self.counted(used_as, Outcome::Refused)
    }

    pub(crate) fn objects(&self) -> Vec<Arc<Object>> {
        let uses = self.uses.lock();
        uses.values()
            .flat_map(|used| used.objects.iter().map(Arc::clone))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_replaced_after_its_operations_and_each_is_in_its_own_file() {
        let folder = std::env::temp_dir().join(format!("histories-{}", std::process::id()));
        let lasts = Lasts {
            operations: 2,
            time: Duration::from_secs(3_600),
        };
        let histories = Histories::create(folder.clone(), 7, lasts).unwrap();
        let names: Vec<String> = (0..3)
            .map(|_| histories.next(Use::Register).unwrap().name.clone())
            .collect();
        assert_eq!(names, ["register-0", "register-0", "register-1"]);

        let record = Record {
            client: 3,
            key: "",
            method: "Get",
            arguments: &Arguments::default(),
            call: 10,
            returned: None,
            outcome: Outcome::Unknown,
            code: Some("DEADLINE_EXCEEDED"),
            reply: None,
        };
        for object in histories.objects() {
            object.record(&record).unwrap();
            object.flush().unwrap();
            object.flush().unwrap();
        }
        let written = std::fs::read_to_string(folder.join("register-1.jsonl")).unwrap();
        assert_eq!(
            written,
            "{\"kind\":\"counter\",\"name\":\"register-1\",\"seed\":7}\n\
             {\"client\":3,\"method\":\"Get\",\"arguments\":{},\"call\":10,\
             \"outcome\":\"unknown\",\"code\":\"DEADLINE_EXCEEDED\"}\n"
        );
        std::fs::remove_dir_all(folder).unwrap();
    }
}

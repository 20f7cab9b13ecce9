//! A machine that keeps every line it was given.

use std::io::{self, Read, Write};

use atomix_raft::Machine;
use bytes::Bytes;

#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) lines: Vec<String>,
}

impl Machine for Journal {
    /// The index of the entry.
    type Output = u64;
    type Snapshot = Vec<String>;

    fn apply(&mut self, index: u64, _term: u64, payload: &Bytes) -> u64 {
        let line = String::from_utf8_lossy(payload).into_owned();
        assert_ne!(line, "panic", "the machine was told to panic");
        self.lines.push(line);
        index
    }

    fn snapshot(&self) -> Vec<String> {
        self.lines.clone()
    }

    fn write_snapshot(snapshot: &Vec<String>, writer: &mut dyn Write) -> io::Result<()> {
        for line in snapshot {
            writeln!(writer, "{line}")?;
        }
        Ok(())
    }

    fn install(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        let mut text = String::new();
        reader.read_to_string(&mut text)?;
        self.lines = text.lines().map(str::to_owned).collect();
        Ok(())
    }
}

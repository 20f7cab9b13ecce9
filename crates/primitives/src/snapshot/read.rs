//! Reading a snapshot. What the checksums let through is still checked: nothing that is read may
//! make a replica panic or differ from the others later.

use std::io::Read;
use std::sync::Arc;

use crate::context::{Intent, Transaction};
use crate::error::{ErrorCode, OperationError, SnapshotError};
use crate::events::{Event, EventRing};
use crate::ids::{
    EventPosition, OperationId, OwnerNumber, PrimitiveKey, Sequence, SessionId, TimerId, duration,
};
use crate::instance::Instance;
use crate::kinds::Kinds;
use crate::limits::Limits;
use crate::section::SectionReader;
use crate::session::{Done, Entry, Parked, Session, Waiting};
use crate::state::State;
use crate::timers::Timer;

use super::records::{self, sort};

pub(crate) fn read(kinds: &Arc<Kinds>, reader: &mut dyn Read) -> Result<State, SnapshotError> {
    let (sections, header) = SectionReader::begin::<records::Header>(reader)?;
    let mut restore = Restore {
        kinds,
        state: state(kinds, &header)?,
        sections,
    };
    restore.sections()?;
    restore.check_timers()?;
    restore.link()?;
    Ok(restore.state)
}

fn state(kinds: &Kinds, header: &records::Header) -> Result<State, SnapshotError> {
    if header.magic != records::MAGIC {
        return Err(SnapshotError::damaged("it is no partition snapshot"));
    }
    if header.format != records::FORMAT {
        return Err(SnapshotError::Unsupported(format!(
            "its format is {}, this program reads {}",
            header.format,
            records::FORMAT
        )));
    }
    if header.active_version > kinds.supported_version() {
        return Err(SnapshotError::Unsupported(format!(
            "its active version is {}, this program supports {}",
            header.active_version,
            kinds.supported_version()
        )));
    }
    Ok(State {
        applied_index: header.applied_index,
        active_version: header.active_version,
        time: duration(header.time_nanos),
        counter: header.counter,
        limits: Limits {
            event_ring_bytes: header.event_ring_bytes,
            event_ring_count: header.event_ring_count,
            session_window_operations: header.session_window_operations,
            session_window_reply_bytes: header.session_window_reply_bytes,
        },
        ..State::new()
    })
}

struct Restore<'a> {
    kinds: &'a Kinds,
    state: State,
    sections: SectionReader<'a>,
}

impl Restore<'_> {
    fn sections(&mut self) -> Result<(), SnapshotError> {
        let mut previous = None;
        while let Some(section) = self.sections.next_section::<records::Section>()? {
            let place = (
                section.sort,
                section.session,
                section.kind.clone(),
                section.name.clone(),
            );
            if previous.as_ref() >= Some(&place) {
                return Err(SnapshotError::damaged("its sections are not in order"));
            }
            previous = Some(place);
            self.section(&section)?;
        }
        match previous {
            Some((sort::EVENTS, ..)) => Ok(()),
            _ => Err(SnapshotError::damaged("it lacks sections")),
        }
    }

    fn section(&mut self, section: &records::Section) -> Result<(), SnapshotError> {
        let known = section.sort == sort::PRIMITIVE || section.version <= records::FRAME_SECTION;
        match section.sort {
            sort::SESSION if known => self.session(SessionId(section.session)),
            sort::PRIMITIVE => self.primitive(section),
            sort::TIMERS if known => self.timers(),
            sort::EVENTS if known => self.events(),
            sort => Err(SnapshotError::Unsupported(format!(
                "a section has the sort {sort} and version {}",
                section.version
            ))),
        }
    }

    fn session(&mut self, id: SessionId) -> Result<(), SnapshotError> {
        let head: records::Session = self.sections.required()?;
        let timeout = duration(head.timeout_nanos);
        let mut session = Session::restored(timeout, &head.client, head.floor, &head.open);
        while let Some(record) = self.sections.record::<records::Entry>()? {
            let sequence = Sequence(record.sequence);
            if session.entry(sequence).is_some() {
                return Err(SnapshotError::damaged("an operation is there twice"));
            }
            let entry = self.entry(record)?;
            session.record(sequence, entry);
        }
        self.state.sessions.insert(id, session);
        Ok(())
    }

    fn entry(&self, record: records::Entry) -> Result<Entry, SnapshotError> {
        let primitive = match record.kind.as_str() {
            "" => None,
            kind => Some(self.key(kind, &record.name)?),
        };
        let reply = match record.progress {
            Some(records::Progress::Waiting(waiting)) => {
                let primitive = primitive
                    .ok_or_else(|| SnapshotError::damaged("an operation waits nowhere"))?;
                let owner = (waiting.owner != 0).then_some(OwnerNumber(waiting.owner));
                let parked = waiting.parked.map(parked).transpose()?;
                return Ok(Entry::Waiting(Waiting {
                    primitive,
                    owner,
                    parked,
                }));
            }
            Some(records::Progress::Reply(reply)) => Ok(reply),
            Some(records::Progress::Error(error)) => {
                let code = ErrorCode::from_i32(error.code)
                    .ok_or_else(|| SnapshotError::damaged("an error has an unknown code"))?;
                Err(OperationError::new(code, error.message))
            }
            None => return Err(SnapshotError::damaged("an operation has no progress")),
        };
        Ok(Entry::Done(Done { primitive, reply }))
    }

    fn primitive(&mut self, section: &records::Section) -> Result<(), SnapshotError> {
        let key = self.key(&section.kind, &section.name)?;
        let head: records::Instance = self.sections.required()?;
        let primitive = self
            .kinds
            .read(key.kind, section.version, &mut self.sections)?;
        let mut instance = Instance::new(primitive);
        for session in head.sessions {
            let session = SessionId(session);
            if !self.state.sessions.contains_key(&session) {
                return Err(SnapshotError::damaged(
                    "a primitive has an owner that is gone",
                ));
            }
            instance.sessions.insert(session);
            self.state.touched.insert((session, key.clone()));
        }
        for record in head.intents {
            let (key, intent) = intent(record);
            instance.intents.restore(key, intent);
        }
        self.state.primitives.insert(key, instance);
        Ok(())
    }

    fn timers(&mut self) -> Result<(), SnapshotError> {
        while let Some(record) = self.sections.record::<records::Timer>()? {
            let primitive = self.key(&record.kind, &record.name)?;
            let id = TimerId {
                deadline: duration(record.deadline_nanos),
                number: record.number,
            };
            let instance = self
                .state
                .primitives
                .get_mut(&primitive)
                .ok_or_else(|| SnapshotError::damaged("a timer belongs to no primitive"))?;
            instance.timers += 1;
            let tag = record.tag;
            self.state.timers.set(id, Timer { primitive, tag });
        }
        Ok(())
    }

    fn events(&mut self) -> Result<(), SnapshotError> {
        let head: records::Ring = self.sections.required()?;
        let mut ring = EventRing::restored(head.lost_through.as_ref().map(position));
        while let Some(record) = self.sections.record::<records::Event>()? {
            let event = Event {
                position: position(&record.position.unwrap_or_default()),
                primitive: self.key(&record.kind, &record.name)?,
                key: record.key,
                payload: record.payload,
            };
            if !ring.restore(event) {
                return Err(SnapshotError::damaged("its events are not in order"));
            }
        }
        self.state.events = ring;
        Ok(())
    }

    fn check_timers(&self) -> Result<(), SnapshotError> {
        let counted: u64 = self
            .state
            .primitives
            .values()
            .map(|instance| instance.timers)
            .sum();
        if counted == self.state.timers.len() as u64 {
            return Ok(());
        }
        Err(SnapshotError::damaged("a timer is there twice"))
    }

    /// Rebuilds what follows from the rest: the lines of the keys and the byte counts.
    fn link(&mut self) -> Result<(), SnapshotError> {
        for (id, session) in &self.state.sessions {
            for (sequence, waiting) in session.waiting() {
                let Some(parked) = &waiting.parked else {
                    continue;
                };
                let operation = OperationId {
                    session: *id,
                    sequence,
                };
                let line = self
                    .state
                    .primitives
                    .get_mut(&waiting.primitive)
                    .filter(|instance| instance.intents.get(&parked.key).is_some())
                    .ok_or_else(|| {
                        SnapshotError::damaged("an operation waits for a key that is free")
                    })?;
                line.parked
                    .insert((parked.key.clone(), parked.number), operation);
            }
        }
        let keys: Vec<PrimitiveKey> = self.state.primitives.keys().cloned().collect();
        for key in keys {
            self.state.settle(&key);
        }
        Ok(())
    }

    fn key(&self, kind: &str, name: &str) -> Result<PrimitiveKey, SnapshotError> {
        let kind = self.kinds.name(kind).ok_or_else(|| {
            SnapshotError::Unsupported(format!("a record is of the unknown kind {kind:?}"))
        })?;
        let name = name.into();
        Ok(PrimitiveKey { kind, name })
    }
}

fn parked(record: records::ParkedOperation) -> Result<Parked, SnapshotError> {
    let operation = record
        .operation
        .ok_or_else(|| SnapshotError::damaged("a waiting operation is missing"))?;
    Ok(Parked {
        key: record.key,
        number: record.number,
        operation,
    })
}

fn intent(record: records::Intent) -> (bytes::Bytes, Intent) {
    let operation = OperationId {
        session: SessionId(record.session),
        sequence: Sequence(record.sequence),
    };
    let transaction = Transaction {
        coordinator: record.coordinator,
        operation,
    };
    let intent = Intent {
        transaction,
        placed_at: duration(record.placed_at_nanos),
        payload: record.payload,
    };
    (record.key, intent)
}

fn position(record: &records::Position) -> EventPosition {
    EventPosition {
        operation: record.operation,
        ordinal: record.ordinal,
    }
}

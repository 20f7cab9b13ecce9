//! Writing a snapshot.

use std::io::{self, Write};

use crate::events::EventRing;
use crate::ids::{EventPosition, PrimitiveKey, SessionId, nanos};
use crate::instance::Instance;
use crate::section::SectionWriter;
use crate::session::{Entry, Session};
use crate::state::State;
use crate::timers::TimerTable;

use super::records::{self, sort};

pub(super) fn write(state: &State, writer: &mut dyn Write) -> io::Result<()> {
    let mut sections = SectionWriter::begin(writer, &header(state))?;
    for (id, session) in &state.sessions {
        write_session(*id, session, &mut sections)?;
    }
    for (key, instance) in &state.primitives {
        write_primitive(key, instance, state.active_version, &mut sections)?;
    }
    write_timers(&state.timers, &mut sections)?;
    write_events(&state.events, &mut sections)?;
    sections.end()
}

fn header(state: &State) -> records::Header {
    records::Header {
        magic: records::MAGIC.to_owned(),
        format: records::FORMAT,
        active_version: state.active_version,
        applied_index: state.applied_index,
        time_nanos: nanos(state.time),
        counter: state.counter,
        event_ring_bytes: state.limits.event_ring_bytes,
        event_ring_count: state.limits.event_ring_count,
        session_window_operations: state.limits.session_window_operations,
        session_window_reply_bytes: state.limits.session_window_reply_bytes,
    }
}

fn write_session(
    id: SessionId,
    session: &Session,
    sections: &mut SectionWriter<'_>,
) -> io::Result<()> {
    sections.begin_section(&records::Section {
        sort: sort::SESSION,
        version: records::FRAME_SECTION,
        session: id.0,
        ..records::Section::default()
    })?;
    sections.record(&records::Session {
        timeout_nanos: nanos(session.timeout),
        client: session.client.to_string(),
        floor: session.floor(),
        open: session.open().collect(),
    })?;
    for (sequence, entry) in session.entries() {
        sections.record(&entry_record(sequence.0, entry))?;
    }
    Ok(())
}

fn entry_record(sequence: u64, entry: &Entry) -> records::Entry {
    let (primitive, progress) = match entry {
        Entry::Waiting(waiting) => {
            let parked = waiting.parked.as_ref();
            let record = records::Waiting {
                owner: waiting.owner.map_or(0, |owner| owner.0),
                parked: parked.map(|parked| records::ParkedOperation {
                    key: parked.key.clone(),
                    number: parked.number,
                    operation: Some(parked.operation.clone()),
                }),
            };
            (Some(&waiting.primitive), records::Progress::Waiting(record))
        }
        Entry::Done(done) => {
            let progress = match &done.reply {
                Ok(reply) => records::Progress::Reply(reply.clone()),
                Err(error) => records::Progress::Error(records::Error {
                    code: error.code.to_i32(),
                    message: error.message.clone(),
                }),
            };
            (done.primitive.as_ref(), progress)
        }
    };
    let (kind, name) = names(primitive);
    records::Entry {
        sequence,
        kind,
        name,
        progress: Some(progress),
    }
}

fn names(primitive: Option<&PrimitiveKey>) -> (String, String) {
    match primitive {
        Some(primitive) => (primitive.kind.to_owned(), primitive.name.to_string()),
        None => Default::default(),
    }
}

fn write_primitive(
    key: &PrimitiveKey,
    instance: &Instance,
    active_version: u32,
    sections: &mut SectionWriter<'_>,
) -> io::Result<()> {
    let version = instance.primitive().section_version(active_version);
    let (kind, name) = names(Some(key));
    sections.begin_section(&records::Section {
        sort: sort::PRIMITIVE,
        version,
        kind,
        name,
        ..records::Section::default()
    })?;
    let intents = instance.intents.iter();
    sections.record(&records::Instance {
        sessions: instance.sessions.iter().map(|session| session.0).collect(),
        intents: intents
            .map(|(key, intent)| records::Intent {
                key: key.clone(),
                coordinator: intent.transaction.coordinator,
                session: intent.transaction.operation.session.0,
                sequence: intent.transaction.operation.sequence.0,
                placed_at_nanos: nanos(intent.placed_at),
                payload: intent.payload.clone(),
            })
            .collect(),
    })?;
    instance.primitive().write(version, sections)
}

fn write_timers(timers: &TimerTable, sections: &mut SectionWriter<'_>) -> io::Result<()> {
    sections.begin_section(&records::Section {
        sort: sort::TIMERS,
        version: records::FRAME_SECTION,
        ..records::Section::default()
    })?;
    for (id, timer) in timers.iter() {
        let (kind, name) = names(Some(&timer.primitive));
        sections.record(&records::Timer {
            deadline_nanos: nanos(id.deadline),
            number: id.number,
            kind,
            name,
            tag: timer.tag.clone(),
        })?;
    }
    Ok(())
}

fn write_events(ring: &EventRing, sections: &mut SectionWriter<'_>) -> io::Result<()> {
    sections.begin_section(&records::Section {
        sort: sort::EVENTS,
        version: records::FRAME_SECTION,
        ..records::Section::default()
    })?;
    sections.record(&records::Ring {
        lost_through: ring.lost_through().map(position_record),
    })?;
    for event in ring.iter() {
        let (kind, name) = names(Some(&event.primitive));
        sections.record(&records::Event {
            position: Some(position_record(event.position)),
            kind,
            name,
            key: event.key.clone(),
            payload: event.payload.clone(),
        })?;
    }
    Ok(())
}

fn position_record(position: EventPosition) -> records::Position {
    records::Position {
        operation: position.operation,
        ordinal: position.ordinal,
    }
}

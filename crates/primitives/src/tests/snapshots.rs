//! Snapshot files: what goes in comes out, and damage is always found.

use std::io::{self, Write};

use atomix_proto::multiraft::v1::CommandBatch;
use proptest::prelude::*;

use super::random::batches;
use super::support::*;
use crate::snapshot::frame::{FrameSort, FrameWriter};
use crate::{SnapshotError, StateMachine};

/// A partition with something of everything.
fn rich() -> Partition {
    let mut partition = Partition::new();
    let (one, two) = (partition.open(), partition.open());
    let second = std::time::Duration::from_secs(1);
    partition.run(one, increment("c", -42)).unwrap();
    partition.run(one, put_with_ttl("k", "v", second)).unwrap();
    partition.run(one, acquire(1)).unwrap();
    partition.try_run(two, acquire_within(2, second));
    partition.run(one, prepare(1, &["a"], "t")).unwrap();
    partition.try_run(two, put("a", "waits"));
    assert!(partition.run(two, increment("c", i64::MIN)).is_err());
    partition.one(operate_with_open(two, 9, 8, &[3, 5], increment("d", 1)));
    partition
}

#[test]
fn an_empty_state_and_a_rich_one_survive_a_snapshot() {
    for partition in [Partition::new(), rich()] {
        let restored = partition.restored();
        assert_eq!(restored.bytes(), partition.bytes());
        assert_eq!(restored.machine.usage(), partition.machine.usage());
        assert_eq!(
            restored.machine.applied_index(),
            partition.machine.applied_index()
        );
        let sessions: Vec<_> = restored.machine.sessions().collect();
        assert_eq!(sessions, partition.machine.sessions().collect::<Vec<_>>());
    }
}

#[test]
fn every_truncation_is_found() {
    let bytes = rich().bytes();
    for length in 0..bytes.len() {
        let mut cut = &bytes[..length];
        assert!(
            StateMachine::restore(kinds(), &mut cut).is_err(),
            "{length}"
        );
    }
}

#[test]
fn every_single_flipped_bit_is_found() {
    let mut bytes = rich().bytes();
    for place in 0..bytes.len() {
        for bit in 0..8 {
            bytes[place] ^= 1 << bit;
            let restored = StateMachine::restore(kinds(), &mut bytes.as_slice());
            assert!(restored.is_err(), "byte {place}, bit {bit}");
            bytes[place] ^= 1 << bit;
        }
    }
}

#[test]
fn a_frame_that_is_missing_or_stands_elsewhere_is_found() {
    let bytes = rich().bytes();
    let frames = split_frames(&bytes);
    assert!(frames.len() > 6);
    for missing in 0..frames.len() {
        let mut rest = frames.clone();
        rest.remove(missing);
        assert!(StateMachine::restore(kinds(), &mut rest.concat().as_slice()).is_err());
    }
    for first in 1..frames.len() {
        let mut swapped = frames.clone();
        swapped.swap(first - 1, first);
        assert!(StateMachine::restore(kinds(), &mut swapped.concat().as_slice()).is_err());
    }
}

fn split_frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let Some(length) = bytes.first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize + 9;
        let (frame, rest) = bytes.split_at(length);
        frames.push(frame);
        bytes = rest;
    }
    frames
}

#[test]
fn nothing_behind_the_end_is_read() {
    let partition = rich();
    let mut bytes = partition.bytes();
    let length = bytes.len();
    bytes.extend_from_slice(b"what follows is somebody else's");
    let mut reader = bytes.as_slice();
    StateMachine::restore(kinds(), &mut reader).unwrap();
    assert_eq!(reader.len(), bytes.len() - length);
}

#[test]
fn values_of_many_frames_survive() {
    let mut partition = Partition::new();
    let session = partition.open();
    let large = "0123456789abcdef".repeat(100_000);
    partition.run(session, put("large", &large)).unwrap();
    partition.run(session, put("small", "v")).unwrap();
    let restored = partition.restored();
    assert_eq!(item(restored.machine.query(&get("large"))).value, large);
    assert_eq!(restored.bytes(), partition.bytes());
}

#[test]
fn a_writer_that_fails_makes_the_snapshot_fail() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let snapshot = rich().machine.snapshot();
    let error = snapshot.write(&mut Full(100)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn damage_and_a_newer_program_are_told_apart() {
    let mut nothing = io::empty();
    let error = StateMachine::restore(kinds(), &mut nothing).err();
    assert!(matches!(error, Some(SnapshotError::Read(_))));
    let mut bytes = rich().bytes();
    bytes[20] ^= 1;
    let error = StateMachine::restore(kinds(), &mut bytes.as_slice()).err();
    assert!(matches!(error, Some(SnapshotError::Damaged(_))));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_snapshot_and_no_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        prop_assert!(StateMachine::restore(kinds(), &mut bytes.as_slice()).is_err());
    }

    #[test]
    fn arbitrary_frames_with_right_checksums_never_panic(
        log in batches(20),
        edits in proptest::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()),
            0..4,
        ),
    ) {
        forged_snapshots_never_panic(&log, &edits)?;
    }
}

/// Where to change a snapshot: which frame, which byte of it, with what.
pub(crate) type Edit = (prop::sample::Index, prop::sample::Index, u8);

/// Changes bytes of the snapshot of a log, makes the checksums fit, and goes on from it.
pub(crate) fn forged_snapshots_never_panic(
    log: &[CommandBatch],
    edits: &[Edit],
) -> Result<(), TestCaseError> {
    let mut machine = StateMachine::new(kinds());
    for (position, batch) in log.iter().enumerate() {
        machine.apply(position as u64 + 1, batch);
    }
    let bytes = snapshot_bytes(&machine);
    let mut frames: Vec<Vec<u8>> = split_frames(&bytes)
        .into_iter()
        .map(<[u8]>::to_vec)
        .collect();
    for (which, place, with) in edits {
        let (which, place) = (*which, *place);
        let which = which.index(frames.len());
        let payload = &mut frames[which][9..];
        if !payload.is_empty() {
            let place = place.index(payload.len());
            payload[place] ^= with;
        }
    }
    let forged = rewrite(&frames);
    if let Ok(mut restored) = StateMachine::restore(kinds(), &mut forged.as_slice()) {
        // Whatever came in, it must go on without a panic and come out the same.
        for step in 1..5 {
            let index = restored.applied_index().saturating_add(1);
            for batch in log.iter().take(step) {
                restored.apply(index, batch);
            }
            let again = snapshot_bytes(&restored);
            prop_assert!(!again.is_empty());
        }
    }
    Ok(())
}

/// The same frames with checksums that fit them.
fn rewrite(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut forged = Vec::new();
    let mut writer = FrameWriter::new(&mut forged);
    for frame in frames {
        let sort = match frame[8] {
            1 => FrameSort::Header,
            2 => FrameSort::Section,
            3 => FrameSort::Data,
            _ => FrameSort::End,
        };
        writer.write(sort, &frame[9..]).unwrap();
    }
    forged
}

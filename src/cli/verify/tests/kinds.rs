//! One story for each kind of finding.

use super::fixture::{BATCHES, END, EPOCH_1, RECORDS, SPAN, TOPIC, World, batch, show, verify};
use crate::base::ids::TopicId;
use crate::cli::verify::finding::Check::*;
use crate::cli::verify::finding::Place;
use crate::cli::verify::finding::Severity::{Error, Info, Warning};
use crate::coordination::embedded::FILE_NAME;
use crate::log::checkpoint;
use crate::log::paths::{self, LOG};
use crate::node::manifest::{MANIFEST, META};
use crate::record::batch::BatchHeader;
use std::collections::BTreeMap;
use std::fs;

const LAST: i64 = END - SPAN;

#[test]
fn a_flipped_bit_in_a_sealed_segment() {
    let world = World::new();
    let at = world.positions(SPAN)[2];
    world.edit(&world.file(SPAN, LOG), |content| content[at + 80] ^= 4);
    let found = world.assert_single(Error, BatchCrc);
    assert_eq!((found.file.as_path(), found.place), (world.file(SPAN, LOG).as_path(), Place::Byte(at as u64)));
    assert!(found.expected.starts_with("CRC-32C ") && found.expected.ends_with("offset 24 on"), "{}", found.expected);
    assert!(found.meaning.contains("offsets 24 to 26 cannot be read"), "{}", found.meaning);
}

/// The length leads into the middle of the next batch: the next whole one is found all the same.
#[test]
fn a_length_that_is_wrong_hides_one_batch_and_not_the_rest() {
    let world = World::new();
    let at = world.positions(SPAN)[1];
    world.edit(&world.file(SPAN, LOG), |content| content[at + 11] ^= 0x15);
    let found = world.assert_single(Error, BatchCrc);
    assert!(found.meaning.contains("offsets 21 to 23 "), "{}", found.meaning);
}

#[test]
fn a_magic_that_is_wrong_is_no_old_format() {
    for magic in [0, 1, 3] {
        let world = World::new();
        let at = world.positions(0)[3];
        world.edit(&world.file(0, LOG), |content| content[at + 16] = magic);
        let found = world.assert_single(Error, BatchHeader);
        assert_eq!(found.found, format!("magic {magic} is not served: only message format v2 (magic 2) is"));
    }
}

#[test]
fn a_tail_that_a_crash_tore_is_a_warning_until_it_was_promised() {
    let tear = |world: &World| {
        let at = world.positions(LAST)[5];
        world.edit(&world.file(LAST, LOG), |content| content.truncate(at + 30));
    };
    let crashed = World::crashed(LAST);
    tear(&crashed);
    let found = crashed.single();
    assert_eq!((found.severity, found.check), (Warning, BatchHeader), "{}", found.lines());
    assert!(found.meaning.contains("cuts these 30 bytes"), "{}", found.meaning);
    let promised = World::crashed(END);
    tear(&promised);
    let found = promised.assert_single(Error, BatchHeader);
    assert!(found.meaning.contains("copy this directory before"), "{}", found.meaning);
    let stopped = World::new();
    tear(&stopped);
    stopped.assert_single(Error, BatchHeader);
    // A segment that was copied from somewhere.
    let alone = tempfile::tempdir().expect("a directory");
    let copy = alone.path().join("00000000000000000036.log");
    fs::copy(crashed.file(LAST, LOG), &copy).expect("copied");
    let found = verify(&copy);
    assert_eq!(found.iter().map(|f| (f.severity, f.check)).collect::<Vec<_>>(), [(Warning, BatchHeader)]);
}

#[test]
fn blocks_that_never_reached_the_disk() {
    let world = World::crashed(LAST + RECORDS);
    let at = world.positions(LAST)[1];
    world.edit(&world.file(LAST, LOG), |content| content[at..].fill(0));
    let found = world.assert_single(Warning, BatchHeader);
    assert!(found.found.ends_with("zero bytes up to the end"), "{}", found.found);
}

/// Neither base offset nor leader epoch is under the CRC.
#[test]
fn a_base_offset_that_is_wrong_is_told_once_and_of_the_right_batch() {
    for (flip, offset) in [(0x40, 24 + 64), (0x08, 16)] {
        let world = World::new();
        let at = world.positions(SPAN)[2];
        world.edit(&world.file(SPAN, LOG), |content| content[at + 7] ^= flip);
        let found = world.assert_single(Error, BatchOffset);
        assert_eq!((found.place, found.found), (Place::Byte(at as u64), format!("offset {offset}")));
    }
}

#[test]
fn a_leader_epoch_that_is_wrong() {
    for (base, n, epoch) in [(0, 2, 5), (SPAN, 3, 0), (LAST, 5, 9)] {
        let world = World::new();
        let at = world.positions(base)[n];
        world.edit(&world.file(base, LOG), |content| content[at + 15] = epoch);
        let found = world.assert_single(Error, LeaderEpoch);
        assert_eq!(found.place, Place::Byte(at as u64));
    }
}

#[test]
fn a_lost_segment() {
    let world = World::new();
    for suffix in [LOG, paths::OFFSET_INDEX, paths::TIME_INDEX] {
        fs::remove_file(world.file(SPAN, suffix)).expect("removed");
    }
    let found = world.assert_single(Error, OffsetGap);
    assert_eq!((found.expected.as_str(), found.found.as_str()), ("offset 18", "offset 36"));
    let world = World::new();
    fs::remove_file(world.file(LAST, LOG)).expect("removed");
    let mut kinds: Vec<_> = world.verify().iter().map(|f| (f.severity, f.check)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert!(kinds.contains(&(Error, RecoveryPoint)) && kinds.contains(&(Warning, Leftover)), "{kinds:?}");
    for suffix in [LOG, paths::OFFSET_INDEX, paths::TIME_INDEX] {
        let _ = [0, SPAN, LAST].map(|base| fs::remove_file(world.file(base, suffix)));
    }
    assert!(world.verify().iter().any(|f| (f.severity, f.check) == (Error, RecoveryPoint)));
}

/// The end of a log is gone, between two batches. Damage elsewhere in it kept that from being told.
#[test]
fn a_lost_end() {
    for damaged in [false, true] {
        let world = World::crashed(END);
        let at = world.positions(LAST)[4];
        world.edit(&world.file(LAST, LOG), |content| content.truncate(at));
        for suffix in [paths::OFFSET_INDEX, paths::TIME_INDEX] {
            fs::remove_file(world.file(LAST, suffix)).expect("removed");
        }
        if damaged {
            let second = world.positions(0)[1];
            world.edit(&world.file(0, LOG), |content| content[second + 70] ^= 1);
        }
        let found = world.verify();
        let lost = found.iter().find(|f| f.check == RecoveryPoint).expect("told");
        assert_eq!((lost.severity, lost.place), (Error, Place::Byte(at as u64)), "{}", lost.lines());
        assert_eq!(lost.file, world.file(LAST, LOG));
        assert!(lost.meaning.starts_with(&format!("{} offsets", END - LAST - 4 * RECORDS)), "{}", lost.meaning);
    }
}

/// In a compacted topic gaps are legal; in one whose settings nobody knows they are odd.
#[test]
fn gaps_are_worth_what_the_topic_is() {
    let gap = |world: &World| {
        let positions = world.positions(LAST);
        world.edit(&world.file(LAST, LOG), |content| {
            content.drain(positions[2]..positions[3]);
        });
        for suffix in [paths::OFFSET_INDEX, paths::TIME_INDEX] {
            fs::remove_file(world.file(LAST, suffix)).expect("removed");
        }
    };
    let world = World::crashed(LAST);
    gap(&world);
    let found = world.assert_single(Error, OffsetGap);
    assert_eq!((found.expected.as_str(), found.found.as_str()), ("offset 42", "offset 45"));
    let manifest = crate::node::manifest::Manifest::read(world.root.path()).expect("readable");
    let cluster = manifest.expect("formatted").cluster_id;
    world.write_store(&cluster, &BTreeMap::from([("cleanup.policy".to_owned(), "compact,delete".to_owned())]));
    assert!(world.verify().is_empty());
    let kafkas = World::crashed(LAST);
    gap(&kafkas);
    for name in [FILE_NAME, MANIFEST] {
        fs::remove_file(kafkas.root.path().join(name)).expect("removed");
    }
    kafkas.assert_single(Warning, OffsetGap);
    kafkas.write_offsets("cleaner-offset-checkpoint", LAST);
    assert!(kafkas.verify().is_empty(), "Kafka's cleaner was there");
}

#[test]
fn offsets_of_the_next_segment() {
    let world = World::new();
    let (_, strange) = batch(SPAN);
    world.edit(&world.file(0, LOG), |content| content.extend_from_slice(&strange));
    let found = world.verify();
    let has = |check| found.iter().any(|f| f.severity == Error && f.check == check);
    assert!(has(SegmentBounds), "{}", show(&found));
}

#[test]
fn indexes_that_lead_astray() {
    let world = World::new();
    world.edit(&world.file(0, paths::OFFSET_INDEX), |content| content[15] ^= 1);
    world.assert_single(Error, OffsetIndex);
    let world = World::new();
    world.edit(&world.file(0, paths::OFFSET_INDEX), |content| content.push(0));
    world.assert_single(Error, OffsetIndex);
    let world = World::new();
    world.edit(&world.file(0, paths::TIME_INDEX), |content| content[7] ^= 0x40);
    assert!(world.verify().iter().all(|f| (f.severity, f.check) == (Error, TimeIndex)));
    assert!(!world.verify().is_empty());
    let world = World::new();
    fs::copy(world.file(SPAN, paths::OFFSET_INDEX), world.file(LAST, paths::OFFSET_INDEX)).expect("copied");
    world.edit(&world.file(LAST, LOG), |content| content.truncate(0));
    assert!(world.verify().iter().any(|f| f.check == OffsetIndex && f.expected.contains("below byte 0")));
    // After a crash they are rebuilt.
    let world = World::crashed(0);
    world.edit(&world.file(LAST, paths::OFFSET_INDEX), |content| content[15] ^= 1);
    world.assert_single(Warning, OffsetIndex);
}

#[test]
fn indexes_that_are_missing_or_left_over() {
    let world = World::new();
    fs::remove_file(world.file(SPAN, paths::TIME_INDEX)).expect("removed");
    world.assert_single(Warning, MissingIndex);
    let world = World::new();
    fs::write(world.file(7, paths::TIME_INDEX), b"").expect("written");
    world.assert_single(Warning, Leftover);
    let world = World::crashed(SPAN);
    fs::remove_file(world.file(LAST, paths::TIME_INDEX)).expect("removed");
    assert!(world.verify().is_empty(), "a crash comes before the active segment's indexes are written");
}

/// Only Kafka writes these: version, producer, first, last and last stable offset.
#[test]
fn transaction_indexes() {
    let entry = |first: i64, last: i64| {
        let fields = [7, first, last, last + 1].map(i64::to_be_bytes).concat();
        [&0i16.to_be_bytes()[..], &fields].concat()
    };
    let world = World::new();
    fs::write(world.file(SPAN, paths::TXN_INDEX), [entry(SPAN, SPAN + 5), entry(SPAN, SPAN + 9)].concat())
        .expect("written");
    assert!(world.verify().is_empty());
    fs::write(world.file(SPAN, paths::TXN_INDEX), [entry(SPAN, SPAN + 5), entry(SPAN, END)].concat()).expect("written");
    let found = world.assert_single(Error, TransactionIndex);
    assert_eq!(found.place, Place::Byte(34));
}

#[test]
fn producer_snapshots() {
    let world = World::new();
    world.edit(&world.file(LAST, paths::PRODUCER_SNAPSHOT), |content| content[20] ^= 1);
    let found = world.assert_single(Error, ProducerSnapshot);
    assert_eq!(found.place, Place::Byte(2));
    let world = World::new();
    fs::rename(world.file(END, paths::PRODUCER_SNAPSHOT), world.file(END - 1, paths::PRODUCER_SNAPSHOT))
        .expect("renamed");
    let found = world.assert_single(Error, ProducerSnapshot);
    assert_eq!(found.expected, "offsets below 53");
    let world = World::new();
    fs::rename(world.file(END, paths::PRODUCER_SNAPSHOT), world.file(END + 1, paths::PRODUCER_SNAPSHOT))
        .expect("renamed");
    world.assert_single(Warning, ProducerSnapshot);
}

#[test]
fn the_checkpoint_of_leader_epochs() {
    let with = |text: Option<&str>| {
        let world = World::new();
        let path = world.dir().join(paths::LEADER_EPOCH_CHECKPOINT);
        match text {
            Some(text) => fs::write(path, text).expect("written"),
            None => fs::remove_file(path).expect("removed"),
        }
        world
    };
    assert_eq!(EPOCH_1, 21);
    assert!(with(Some("0\n2\n0 0\n1 21\n")).verify().is_empty());
    with(None).assert_single(Warning, EpochCheckpoint);
    assert!(with(Some("0\n2\n0 0\n1 21")).verify().is_empty());
    assert_eq!(with(Some("0\n3\n0 0\n1 21\n")).assert_single(Error, EpochCheckpoint).place, Place::Line(2));
    assert_eq!(with(Some("0\n2\n0 0\n1 x\n")).assert_single(Error, EpochCheckpoint).place, Place::Line(4));
    with(Some("0\n2\n1 0\n0 21\n")).assert_single(Error, EpochCheckpoint);
    with(Some("0\n3\n0 0\n1 21\n2 99\n")).assert_single(Error, EpochCheckpoint);
    with(Some("0\n2\n0 0\n1 24\n")).assert_single(Error, LeaderEpoch);
}

#[test]
fn whose_records_they_are() {
    let with = |text: Option<String>| {
        let world = World::new();
        let path = world.dir().join(paths::PARTITION_METADATA);
        match text {
            Some(text) => fs::write(path, text).expect("written"),
            None => fs::remove_file(path).expect("removed"),
        }
        world
    };
    with(None).assert_single(Error, PartitionMetadata);
    with(Some("version: 0\ntopic_id: x\n".into())).assert_single(Error, PartitionMetadata);
    with(Some("version: 7\n".into())).assert_single(Error, PartitionMetadata);
    with(Some(format!("version: 0\ntopic_id: {}\n", TopicId::random()))).assert_single(Warning, PartitionMetadata);
}

#[test]
fn offsets_of_the_data_directory() {
    let world = World::new();
    world.write_offsets(checkpoint::RECOVERY_POINTS, END + 1);
    world.assert_single(Error, RecoveryPoint);
    let world = World::new();
    world.write_offsets(checkpoint::LOG_START_OFFSETS, END + 1);
    world.assert_single(Error, LogStartOffset);
    let world = World::new();
    world.write_offsets(checkpoint::HIGH_WATERMARKS, END + 1);
    world.assert_single(Warning, HighWatermark);
    let world = World::new();
    fs::write(world.root.path().join(checkpoint::LOG_START_OFFSETS), "0\n1\nclicks 0\n").expect("written");
    assert_eq!(world.assert_single(Error, Checkpoint).place, Place::Line(3));
}

#[test]
fn a_partition_that_is_gone() {
    let world = World::new();
    fs::remove_dir_all(world.dir()).expect("removed");
    let found = world.assert_single(Error, MissingPartition);
    assert!(found.expected.contains(&format!("{TOPIC}-0 with records up to {END}")));
}

#[test]
fn whose_directory_it_is() {
    let world = World::new();
    world.edit(&world.root.path().join(META), |content| content[5] = b'x');
    assert!(world.verify().iter().all(|f| (f.severity, f.check) == (Error, MetaProperties)));
    let world = World::new();
    fs::write(world.root.path().join(META), "version=0\nbroker.id=4\ncluster.id=x\n").expect("written");
    world.assert_single(Error, MetaProperties);
    let world = World::new();
    world.edit(&world.root.path().join(MANIFEST), |content| content[20] ^= 1);
    world.assert_single(Error, CorelogProperties);
    let world = World::new();
    fs::remove_file(world.root.path().join(MANIFEST)).expect("removed");
    world.assert_single(Error, CorelogProperties);
}

#[test]
fn the_store() {
    let world = World::new();
    world.edit(&world.root.path().join(FILE_NAME), |content| content[40] ^= 1);
    world.assert_single(Error, Store);
    let world = World::new();
    world.edit(&world.root.path().join(FILE_NAME), |content| {
        content.pop();
    });
    let found = world.verify();
    assert!(found.iter().any(|f| (f.severity, f.check) == (Warning, Store)), "{}", show(&found));
    let world = World::new();
    world.write_store("another-cluster-s-id00", &BTreeMap::new());
    world.assert_single(Error, Store);
    let world = World::new();
    fs::remove_file(world.root.path().join(FILE_NAME)).expect("removed");
    world.assert_single(Warning, Store);
}

#[test]
fn the_journal() {
    let world = World::crashed(0);
    let path = crate::journal::file::path(world.root.path(), 0);
    crate::journal::file::make(&path, 7, 1 << 20).expect("made");
    assert!(world.verify().is_empty());
    world.edit(&path, |content| content.truncate(9000));
    world.assert_single(Error, Journal);
    world.edit(&path, |content| content.fill(0));
    world.assert_single(Error, Journal);
}

#[test]
fn what_does_not_belong_there() {
    let world = World::new();
    fs::write(world.dir().join("notes.txt"), "x").expect("written");
    world.assert_single(Warning, Stray);
    let world = World::new();
    fs::create_dir(world.root.path().join("photos")).expect("made");
    world.assert_single(Warning, Stray);
    let world = World::new();
    fs::create_dir(world.root.path().join("gone-0.0123-delete")).expect("made");
    fs::write(world.file(0, "log.deleted"), "x").expect("written");
    assert!(world.verify().iter().all(|f| (f.severity, f.check) == (Info, Leftover)));
    assert_eq!(world.verify().len(), 2);
    let world = World::new();
    fs::write(world.file(0, "log.swap"), "x").expect("written");
    world.assert_single(Error, Leftover);
}

/// The first two segments are one by now, and the node died before the new one had its name.
#[test]
fn an_unfinished_compaction_is_looked_at_as_the_next_start_finishes_it() {
    let world = World::new();
    let both = [world.file(0, LOG), world.file(SPAN, LOG)].map(|path| fs::read(path).expect("readable")).concat();
    let swap = world.file(0, "log.swap");
    fs::write(&swap, &both).expect("written");
    for suffix in [paths::OFFSET_INDEX, paths::TIME_INDEX] {
        fs::write(world.file(0, &format!("{suffix}.swap")), b"").expect("written");
    }
    fs::rename(world.file(0, LOG), world.file(0, "log.deleted")).expect("renamed");
    let found = world.verify();
    let others: Vec<_> = found.iter().filter(|f| f.check != TimeIndex).collect();
    assert!(others.iter().all(|f| (f.severity, f.check) == (Info, Leftover)), "{found:?}");
    world.edit(&swap, |content| content[100] ^= 1);
    assert!(world.verify().iter().any(|f| (f.severity, f.check) == (Error, BatchCrc)));
}

/// Magic 1, uncompressed: offset, length, CRC-32, magic, attributes, timestamp, key, value.
#[test]
fn messages_of_an_old_format() {
    let world = World::new();
    let body = [&[1u8, 0][..], &5i64.to_be_bytes(), &(-1i32).to_be_bytes(), &1i32.to_be_bytes(), b"v"].concat();
    let message = |offset: i64| {
        let length = (body.len() + 4) as i32;
        let crc = crc32fast::hash(&body);
        [&offset.to_be_bytes()[..], &length.to_be_bytes(), &crc.to_be_bytes(), &body].concat()
    };
    let path = world.file(0, LOG);
    fs::write(&path, (0..SPAN).flat_map(message).collect::<Vec<_>>()).expect("written");
    for suffix in [paths::OFFSET_INDEX, paths::TIME_INDEX] {
        fs::write(world.file(0, suffix), b"").expect("written");
    }
    world.assert_single(Info, OldFormat);
    world.edit(&path, |content| content[30] ^= 1);
    assert!(world.verify().iter().any(|f| (f.severity, f.check) == (Error, BatchHeader)));
}

#[test]
fn what_cannot_be_read_is_told() {
    let world = World::new();
    let path = world.file(SPAN, paths::PRODUCER_SNAPSHOT);
    fs::remove_file(&path).expect("removed");
    std::os::unix::fs::symlink("nowhere", &path).expect("linked");
    // It is no regular file: whoever put it there knows.
    world.assert_single(Warning, Stray);
    assert_eq!(world.positions(0).len() as i64, BATCHES + 1);
    let (header, bytes) = batch(0);
    assert_eq!(BatchHeader::parse(&bytes), Ok(header));
}

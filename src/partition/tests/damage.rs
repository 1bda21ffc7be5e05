//! Damage in the middle of a log: told once, answered as such, remembered, and forgotten when it is gone.

use super::world::{Stored, World};
use crate::base::config::TopicConfig;
use crate::base::config::topic::CleanupPolicy;
use crate::base::faults::LostSectors;
use crate::base::ids::Offset;
use crate::log::corrupt::{CORRUPT_RANGES, Place};
use crate::log::paths;
use crate::log::read::{Located, ReadError, locate};
use crate::log::testing::Batch;
use crate::log::times;
use crate::maintenance::Lane;
use crate::maintenance::scrub_progress::Looked;
use crate::partition::leader::Acks;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Five batches of ten records a segment, an index entry for every second batch.
async fn filled(batches: i64) -> World {
    let config = TopicConfig {
        segment_bytes: 5 * 1000,
        index_interval_bytes: 1000,
        file_delete_delay_ms: 0,
        ..Default::default()
    };
    let world = World::maintained(config);
    for i in 0..batches {
        let batch = Batch { records: 10, value_bytes: 80, timestamp_ms: 1000 + i, ..Batch::default() };
        world.append_and_wait(batch, Acks::All).await;
    }
    world
}

fn flip(world: &World, batch: &Stored, byte: u64) {
    let path = paths::segment_file(&world.path(), batch.segment, paths::LOG);
    let file = File::options().read(true).write(true).open(path).expect("there");
    let mut bytes = [0];
    file.read_exact_at(&mut bytes, batch.position + byte).expect("read");
    file.write_all_at(&[bytes[0] ^ 1], batch.position + byte).expect("written");
}

/// Which of the log's batches a reader gets that goes on behind each damage, as a consumer does whose operator seeks.
async fn readable(world: &World) -> Vec<Offset> {
    let (mut from, end, mut read) = (world.partition.ends().log_start, world.partition.ends().log_end, Vec::new());
    while from < end {
        match world.try_read(from).await {
            Ok(batches) => {
                from = batches.last().expect("it is not the end").next_offset();
                read.extend(batches.iter().map(|batch| batch.base_offset));
            }
            Err(ReadError::KnownCorrupt { range }) => from = range.next,
            Err(e) => panic!("{e}"),
        }
    }
    read
}

/// A reader goes to a batch that is none any more: the segment is looked through.
async fn meet(world: &World, batch: &Stored) {
    let met = world.try_read(batch.header.base_offset).await;
    let Err(ReadError::Corrupt { segment, .. }) = met else { panic!("{met:?}") };
    world.partition.met_damage(segment);
    world.partition.quiet().await;
}

/// A length in the middle of a sealed segment is wrong. A reader meets it; from then on that range is known, before and
/// after a restart of any kind, and everything else is read, by offset and by time.
#[test]
fn a_damaged_batch_is_answered_as_such_and_everything_else_is_served() {
    tokio_uring::start(async {
        let mut world = filled(23).await;
        world.close().await;
        world.reopen(true).await;
        let stored = world.stored();
        let (damaged, last) = (stored[7], stored[22]);
        let segment_end = stored.iter().find(|batch| batch.segment > damaged.segment).expect("there are more").segment;
        flip(&world, &damaged, 9);
        meet(&world, &damaged).await;
        let read = readable(&world).await;
        let range = *world.partition.core().corrupt().at(damaged.header.base_offset).expect("known");
        assert_eq!(range.first, damaged.header.base_offset);
        assert!(range.next <= segment_end);
        let sound = |batch: &&Stored| batch.header.base_offset < range.first || batch.header.base_offset >= range.next;
        let expected: Vec<Offset> = stored.iter().filter(sound).map(|batch| batch.header.base_offset).collect();
        assert_eq!(read, expected);
        assert!(read.len() >= 21, "no more is lost than up to the next index entry");
        assert_eq!(world.shared.metrics.corrupt_ranges.get(), 1);
        for clean in [true, false] {
            world.close().await;
            world.reopen(clean).await;
            assert!(
                matches!(world.try_read(range.first).await, Err(ReadError::KnownCorrupt { .. })),
                "not served silently"
            );
            assert_eq!(readable(&world).await, expected);
        }
        let corrupt = world.partition.core().corrupt().clone();
        let segments: Vec<_> = world.partition.core().segments().iter().cloned().collect();
        let files = world.partition.files();
        let since = times::first_since((&segments, &corrupt), files, (1007, Offset(0)), 1000).await;
        let found = since.expect("readable").expect("there is one").offset;
        assert!(found >= range.next && found < last.header.base_offset);
    });
}

/// The damaged bytes are put right, as from a backup: the next look at the segment forgets them, and so does a segment's
/// leaving the log.
#[test]
fn damage_that_is_gone_is_forgotten() {
    tokio_uring::start(async {
        let mut world = filled(23).await;
        world.close().await;
        world.reopen(true).await;
        let stored = world.stored();
        for batch in [stored[2], stored[12]] {
            flip(&world, &batch, 16);
            meet(&world, &batch).await;
        }
        let list = world.path().join(CORRUPT_RANGES);
        assert_eq!(world.partition.core().corrupt().len(), 2);
        assert!(list.exists());
        flip(&world, &stored[2], 16);
        world.close().await;
        world.reopen(true).await;
        world.partition.met_damage(stored[2].segment);
        world.partition.quiet().await;
        assert_eq!(world.partition.core().corrupt().len(), 1);
        assert!(world.partition.core().corrupt().holding(place(&stored[12])).is_some());
        world.partition.delete_records(stored[20].header.base_offset);
        world.partition.quiet().await;
        assert!(world.partition.core().corrupt().is_empty());
        assert!(!list.exists(), "an empty list is none");
        assert_eq!(world.shared.metrics.corrupt_ranges.get(), 0);
    });
}

/// The list itself is damaged: it is not believed, and what it said is found again by the first reader.
#[test]
fn a_list_that_is_damaged_is_not_believed() {
    tokio_uring::start(async {
        let mut world = filled(12).await;
        world.close().await;
        world.reopen(true).await;
        let stored = world.stored();
        flip(&world, &stored[3], 16);
        meet(&world, &stored[3]).await;
        let list = world.path().join(CORRUPT_RANGES);
        let text = fs::read_to_string(&list).expect("written");
        fs::write(&list, text.replace("\n1\n", "\n0\n")).expect("damaged");
        world.close().await;
        world.reopen(true).await;
        assert!(world.partition.core().corrupt().is_empty());
        meet(&world, &stored[3]).await;
        assert_eq!(fs::read_to_string(&list).expect("written anew"), text);
    });
}

/// An index that leads into the middle of a batch looks like damage to a reader. It is made anew from the segment.
#[test]
fn an_index_that_leads_nowhere_is_made_anew() {
    tokio_uring::start(async {
        let mut world = filled(12).await;
        world.close().await;
        let stored = world.stored();
        let index = paths::segment_file(&world.path(), stored[0].segment, paths::OFFSET_INDEX);
        let mut bytes = fs::read(&index).expect("there");
        assert!(bytes.len() >= 8);
        bytes[7] ^= 3;
        fs::write(&index, &bytes).expect("damaged");
        world.reopen(true).await;
        let behind = stored[3].header.base_offset;
        assert!(matches!(world.try_read(behind).await, Err(ReadError::Corrupt { .. })));
        world.partition.met_damage(stored[0].segment);
        world.partition.quiet().await;
        assert!(world.partition.core().corrupt().is_empty());
        assert_eq!(world.read(behind).await[0].base_offset, behind);
        world.close().await;
        world.reopen(true).await;
        assert_eq!(world.read(behind).await[0].base_offset, behind);
    });
}

/// Offsets that are missing were seen by the scrub, and told to nobody.
#[test]
fn missing_offsets_are_told_unless_compaction_took_them() {
    tokio_uring::start(async {
        let mut world = filled(12).await;
        world.close().await;
        let stored = world.stored();
        let (from, to) = (stored[2].position as usize, stored[3].position as usize);
        assert_eq!(stored[2].segment, stored[3].segment);
        let path = paths::segment_file(&world.path(), stored[2].segment, paths::LOG);
        let mut bytes = fs::read(&path).expect("there");
        bytes.drain(from..to);
        fs::write(&path, bytes).expect("a batch is gone");
        for suffix in [paths::OFFSET_INDEX, paths::TIME_INDEX] {
            fs::remove_file(paths::segment_file(&world.path(), stored[2].segment, suffix)).expect("they tell of it");
        }
        world.reopen(true).await;
        let segment = world.partition.core().segment_of(stored[2].segment).cloned().expect("there");
        let looked = world.partition.look_through(&segment, Lane::Chore).await.expect("readable");
        assert_eq!(looked, Looked { is_damaged: false, has_gap: true });
        world.partition.cleaning.set_cleaned(Some(stored[3].header.base_offset));
        let looked = world.partition.look_through(&segment, Lane::Chore).await.expect("readable");
        assert_eq!(looked, Looked::default(), "compaction had come so far");
        world.partition.cleaning.set_cleaned(None);
        let cleanup_policy = CleanupPolicy { compact: true, delete: false };
        world.set_config(TopicConfig { cleanup_policy, ..world.config.clone() });
        let looked = world.partition.look_through(&segment, Lane::Chore).await.expect("readable");
        assert_eq!(looked, Looked::default(), "a compacted topic");
    });
}

fn place(batch: &Stored) -> Place {
    Place { segment: batch.segment, position: batch.position as u32 }
}

/// A flipped bit made a batch half a gigabyte of the segment's; each fetch of it took as much memory, and nobody called it damage.
#[test]
fn a_length_that_leads_nowhere_is_not_believed() {
    tokio_uring::start(async {
        let mut world = World::maintained(TopicConfig::default());
        for _ in 0..5 {
            world.append_and_wait(Batch { value_bytes: 500_000, ..Batch::default() }, Acks::All).await;
        }
        world.append_and_wait(Batch { value_bytes: 2_000_000, ..Batch::default() }, Acks::All).await;
        world.append_and_wait(Batch::default(), Acks::All).await;
        world.close().await;
        world.reopen(true).await;
        let stored = world.stored();
        // Bit 20 of the length.
        let path = paths::segment_file(&world.path(), Offset(0), paths::LOG);
        let file = File::options().read(true).write(true).open(path).expect("there");
        let mut byte = [0];
        file.read_exact_at(&mut byte, stored[1].position + 9).expect("read");
        file.write_all_at(&[byte[0] ^ 0x10], stored[1].position + 9).expect("written");
        meet(&world, &stored[1]).await;
        let met = world.try_read(Offset(1)).await;
        assert!(matches!(met, Err(ReadError::KnownCorrupt { .. })), "{met:?}");
        assert_eq!(world.read(Offset(5)).await.len(), 2, "a large batch that is whole is read");
    });
}

/// A sector that could not be read took the whole directory offline when a time was looked up, and was told to nobody when records were
/// fetched.
#[test]
fn a_read_that_fails_has_the_segment_looked_through() {
    tokio_uring::start(async {
        let world = filled(7).await;
        let stored = world.stored();
        flip(&world, &stored[1], 70);
        let path = paths::segment_file(&world.path(), stored[1].segment, paths::LOG);
        let source = std::io::Error::from_raw_os_error(libc::EIO);
        world.partition.read_failed(&ReadError::Io { path, source });
        world.partition.quiet().await;
        assert!(world.shared.disks.failure(world.dir.path()).is_none() && world.partition.core().failure().is_none());
        let met = world.try_read(stored[1].header.base_offset).await;
        assert!(matches!(met, Err(ReadError::KnownCorrupt { .. })), "{met:?}");
        let gone = std::io::Error::from_raw_os_error(libc::ENODEV);
        world.partition.read_failed(&ReadError::Io { path: world.path(), source: gone });
        assert!(world.shared.disks.failure(world.dir.path()).is_some(), "the disk, not a part of it");
    });
}

/// A segment of one sector has nothing that can be read when that is lost, and took its whole directory offline. What a disk that is
/// gone does is told by what else lies there.
#[test]
fn a_small_segment_that_cannot_be_read_is_damage_unless_nothing_else_can() {
    tokio_uring::start(async {
        for gone in [false, true] {
            let is_lost = move |path: &Path, part: &Range<u64>| {
                gone || part.start == 0 && path.ends_with("00000000000000000000.log")
            };
            let mut world = World::maintained_on(TopicConfig::default(), LostSectors::by(is_lost));
            for _ in 0..3 {
                world.append_and_wait(Batch::default(), Acks::All).await;
            }
            world.close().await;
            world.reopen(true).await;
            let path = paths::segment_file(&world.path(), Offset(0), paths::LOG);
            let source = std::io::Error::from_raw_os_error(libc::EIO);
            world.partition.read_failed(&ReadError::Io { path, source });
            world.partition.quiet().await;
            assert_eq!(world.shared.disks.failure(world.dir.path()).is_some(), gone);
            if !gone {
                let range = *world.partition.core().corrupt().at(Offset(1)).expect("known");
                assert_eq!((range.first, range.next), (Offset(0), Offset(3)), "the whole segment");
                let next = world.append_and_wait(Batch::default(), Acks::All).await;
                assert_eq!(world.read(next.base_offset).await.len(), 1, "what comes behind it is served");
            }
        }
    });
}

/// The last megabytes of every segment counted as just written: whoever caught up with a log that takes records waited for the disk on
/// the core.
#[test]
fn only_the_end_of_the_log_is_hot() {
    tokio_uring::start(async {
        let world = filled(12).await;
        let hot = |at| {
            let located = locate(&world.partition.core(), world.partition.files(), (at, Offset(120)), 4096);
            let Ok(Located::At(span)) = located else { panic!("in memory") };
            world.partition.is_hot(&span)
        };
        assert!(hot(Offset(110)) && !hot(world.stored()[4].header.base_offset));
    });
}

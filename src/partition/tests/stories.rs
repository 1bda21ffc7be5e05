//! Bugs that were found, each with its story.

use super::world::World;
use crate::base::config::TopicConfig;
use crate::base::ids::{LeaderEpoch, Offset};
use crate::base::limits::LOG_OFFSET_MAX;
use crate::log::open::{self, OpenError, OpenParams, read_part};
use crate::log::paths;
use crate::log::testing::Batch;
use crate::log::times;
use crate::partition::leader::Acks;
use crate::partition::waiters::{AppendWait, FetchWait, Lost};
use crate::record::batch::BatchHeader;
use crate::record::builder::BatchBuilder;
use crate::record::compression::Compression;
use std::fs;
use std::rc::Rc;
use std::time::Duration;

fn small_segments() -> TopicConfig {
    TopicConfig { segment_bytes: 1, file_delete_delay_ms: 0, ..TopicConfig::default() }
}

/// Retention removed every segment and the process died before log starts were checkpointed: nothing on disk told where
/// the log had been, and offsets were given out a second time.
#[test]
fn offsets_go_on_after_everything_expired_and_a_crash() {
    tokio_uring::start(async {
        let mut world = World::new(TopicConfig { retention_ms: Some(10), ..small_segments() });
        for _ in 0..3 {
            world.append_and_wait(Batch { timestamp_ms: 100, ..Batch::default() }, Acks::All).await;
        }
        world.partition.quiet().await;
        assert_eq!(world.partition.enforce_retention(1000), 3);
        world.partition.quiet().await;
        assert_eq!(world.files(paths::LOG).len(), 1);
        world.reopen(false).await;
        let ends = world.partition.ends();
        assert_eq!((ends.log_start, ends.log_end), (Offset(3), Offset(3)));
        let appended = world.append_and_wait(Batch::default(), Acks::All).await;
        assert_eq!(appended.base_offset, Offset(3));
    });
}

/// A segment that retention removed while a flush was about to sync it was made again, empty, by the sync's open; found at
/// the next start, it became the log's first segment.
#[test]
fn a_flush_does_not_bring_removed_segments_back() {
    tokio_uring::start(async {
        let world = World::new(small_segments());
        for _ in 0..8 {
            world.append_and_wait(Batch::default(), Acks::Leader).await;
        }
        let wait = AppendWait::new();
        world.append(Batch::default(), Acks::All, &wait).expect("taken");
        world.partition.delete_records(Offset(8));
        assert!(wait.done().await.is_empty(), "the flush is not troubled by what is gone");
        world.partition.quiet().await;
        // Segment 7 was the active one when the log's start passed it, and others may not have been sealed: they go with the next check.
        assert!(world.partition.enforce_retention(0) >= 1);
        world.partition.quiet().await;
        let bases: Vec<_> = world.files(paths::LOG).iter().map(|(base, _)| *base).collect();
        assert_eq!(bases, [Offset(8)]);
    });
}

/// A segment was sealed while a flush was under way that had begun before its last write: nothing flushed it until the
/// next one was full, and a crash had all of it read again.
#[test]
fn a_full_segment_is_flushed_even_if_a_flush_was_under_way() {
    tokio_uring::start(async {
        let world = World::new(small_segments());
        for round in 1..=20 {
            let wait = AppendWait::new();
            world.append(Batch::default(), Acks::All, &wait).expect("taken");
            for _ in 0..9 {
                world.append(Batch::default(), Acks::Leader, &wait).expect("taken");
                tokio::task::yield_now().await;
            }
            assert!(wait.done().await.is_empty());
            world.partition.quiet().await;
            let ends = world.partition.ends();
            assert_eq!(ends.log_end, Offset(round * 10));
            assert!(ends.flushed >= ends.log_end + -1, "only the active segment is not flushed: {ends:?}");
        }
    });
}

/// After a sync that failed, the kernel calls the lost pages clean and the next sync succeeds: it must not move the flushed
/// end, or a checkpoint would tell recovery to trust what is gone.
#[test]
fn nothing_is_flushed_after_a_failure() {
    tokio_uring::start(async {
        let world = World::new(small_segments());
        world.append_and_wait(Batch::default(), Acks::Leader).await;
        world.partition.quiet().await;
        let before = world.partition.ends().flushed;
        // The directory's place is taken by a file: the next segment cannot be made.
        fs::rename(world.path(), world.dir.path().join("elsewhere")).expect("moved");
        fs::write(world.path(), b"").expect("a file in its place");
        let waits = [AppendWait::new(), AppendWait::new()];
        world.append(Batch::default(), Acks::Leader, &waits[0]).expect("taken");
        world.append(Batch::default(), Acks::All, &waits[1]).expect("taken");
        for wait in &waits {
            assert_eq!(wait.done().await.as_slice(), [(0, Lost::Failed)], "told once, and not left hanging");
        }
        world.partition.quiet().await;
        world.partition.core().check_invariants();
        assert_eq!(world.partition.ends().flushed, before);
        assert!(world.append(Batch::default(), Acks::All, &AppendWait::new()).is_err());
    });
}

/// Producers of a deleted topic were told of a storage error, for which clients retry, instead of what Kafka says.
#[test]
fn requests_for_a_deleted_topic_end_at_once() {
    tokio_uring::start(async {
        let world = World::new(small_segments());
        world.append_and_wait(Batch::default(), Acks::All).await;
        let (wait, fetch) = (AppendWait::new(), Rc::new(FetchWait::default()));
        world.append(Batch::default(), Acks::All, &wait).expect("taken");
        world.partition.fetches.add(&fetch);
        tokio::time::timeout(Duration::from_secs(10), world.partition.delete()).await.expect("deletes");
        assert_eq!(wait.done().await.as_slice(), [(0, Lost::Deleted)]);
        fetch.woken().await;
        assert!(!world.path().exists());
    });
}

/// A retry of acks=all arrives after the process was killed between write and flush: the batch is in the log, but only in
/// the page cache. Recovery syncs what it read, so that the answer is true.
#[test]
fn a_retry_after_a_kill_is_as_durable_as_it_is_told() {
    tokio_uring::start(async {
        let mut world = World::new(TopicConfig::default());
        let batch = Batch { producer: Some((7, 0, 0)), ..Batch::default() };
        let first = world.append_and_wait(batch, Acks::Leader).await;
        world.partition.quiet().await;
        assert_eq!(world.partition.ends().flushed, Offset(0));
        world.reopen(false).await;
        assert_eq!(world.partition.ends().flushed, Offset(1), "recovery has synced the segment");
        let again = world.append_and_wait(batch, Acks::All).await;
        assert_eq!((again.base_offset, again.duplicate_timestamp_ms), (first.base_offset, Some(0)));
    });
}

/// A log of Kafka's format v1, opened as after a crash, was cut to nothing. (A whole one-record message set, by its CRC.)
#[test]
fn old_formats_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut body = vec![1u8, 0];
    body.extend_from_slice(&1234i64.to_be_bytes());
    body.extend_from_slice(&(-1i32).to_be_bytes());
    body.extend_from_slice(&5i32.to_be_bytes());
    body.extend_from_slice(b"value");
    let mut message = 0i64.to_be_bytes().to_vec();
    message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
    message.extend_from_slice(&body);
    let path = paths::segment_file(dir.path(), Offset(0), paths::LOG);
    fs::write(&path, &message).expect("written");
    for clean in [false, true] {
        let params = OpenParams {
            dir: dir.path().to_owned(),
            clean,
            recovery_point: Offset(0),
            log_start: None,
            cleaned: None,
            now_ms: 0,
        };
        let refused = open::open(&params, &TopicConfig::default(), &read_part);
        assert!(matches!(refused.map(drop), Err(OpenError::OldFormat { magic: 1, position: 0, .. })));
        assert_eq!(fs::read(&path).expect("still there"), message);
    }
}

/// Marked, temporary and orphaned files were left for ever by a stop before their delay was over.
#[test]
fn leftovers_are_removed_at_the_next_start() {
    tokio_uring::start(async {
        let mut world = World::new(TopicConfig::default());
        world.append_and_wait(Batch::default(), Acks::All).await;
        world.close().await;
        let before = fs::read_dir(world.path()).expect("listed").count();
        let names =
            ["00000000000000000000.log.deleted", "00000000000000000007.index", "00000000000000000000.index.tmp"];
        for name in names {
            fs::write(world.path().join(name), b"left over").expect("written");
        }
        world.reopen(true).await;
        assert_eq!(fs::read_dir(world.path()).expect("listed").count(), before);
        // A compaction had come as far as its new segment's name.
        let name = |suffix: &str| world.path().join(format!("{:020}.{suffix}", 0));
        fs::rename(name("log"), name("log.swap")).expect("renamed");
        fs::rename(name("index"), name("index.swap")).expect("renamed");
        world.reopen(true).await;
        assert_eq!(fs::read_dir(world.path()).expect("listed").count(), before);
        assert_eq!(world.partition.ends().log_end, Offset(1));
    });
}

/// Several batches gathered into one write went into one segment though the first of them made the next too late for it.
#[test]
fn batches_of_one_write_roll_by_time_and_index_as_if_written_one_by_one() {
    tokio_uring::start(async {
        let world = World::new(TopicConfig { segment_ms: 100, ..TopicConfig::default() });
        let waits: Vec<_> = [1000, 1100, 1101, 1150, 1202]
            .map(|timestamp_ms| {
                let wait = AppendWait::new();
                world.append(Batch { timestamp_ms, ..Batch::default() }, Acks::Leader, &wait).expect("taken");
                wait
            })
            .into();
        for wait in waits {
            assert!(wait.done().await.is_empty());
        }
        world.partition.quiet().await;
        let bases: Vec<_> = world.files(paths::LOG).iter().map(|(base, _)| base.0).collect();
        assert_eq!(bases, [0, 2, 4], "1101 is 101 ms after 1000, and 1202 is 101 ms after 1101");
    });
}

/// The first batch had no timestamp (-1): every later one seemed decades away from it and rolled a segment of its own.
#[test]
fn a_first_batch_without_timestamp_does_not_roll_the_next() {
    tokio_uring::start(async {
        let world = World::new(TopicConfig { segment_ms: 60_000, ..TopicConfig::default() });
        for timestamp_ms in [-1, 1_700_000_000_000, -1, 1_700_000_000_001] {
            world.append_and_wait(Batch { timestamp_ms, ..Batch::default() }, Acks::Leader).await;
        }
        world.partition.quiet().await;
        assert_eq!(world.files(paths::LOG).len(), 1);
    });
}

/// A log start that a crash leaves beyond the log's end empties the log; it goes on from there, whatever comes next.
#[test]
fn a_log_cut_below_its_start_begins_there() {
    tokio_uring::start(async {
        let mut world = World::new(TopicConfig::default());
        for _ in 0..4 {
            world.append_and_wait(Batch::default(), Acks::Leader).await;
        }
        world.partition.delete_records(Offset(3));
        world.save_checkpoints();
        world.partition.quiet().await;
        let (_, path) = world.files(paths::LOG).remove(0);
        fs::write(&path, b"").expect("the power went before anything was on disk");
        world.reopen(false).await;
        world.saved.log_start = None;
        world.reopen(false).await;
        let ends = world.partition.ends();
        assert_eq!((ends.log_start, ends.log_end), (Offset(3), Offset(3)), "the segment's name tells it too");
    });
}

/// The log is closed again without having been written to: nothing is written, and the next start still scans nothing.
#[test]
fn an_untouched_log_closes_for_nothing() {
    tokio_uring::start(async {
        let mut world = World::new(TopicConfig::default());
        world.append_and_wait(Batch { producer: Some((7, 0, 0)), ..Batch::default() }, Acks::All).await;
        world.close().await;
        assert!(world.reopen(true).await.is_clean);
        let index = paths::segment_file(&world.path(), Offset(0), paths::TIME_INDEX);
        let written = fs::metadata(&index).and_then(|data| data.modified()).expect("there");
        world.close().await;
        assert_eq!(fs::metadata(&index).and_then(|data| data.modified()).expect("there"), written);
        assert!(world.reopen(true).await.is_clean);
        assert_eq!(world.partition.core().producers().len(), 1);
    });
}

/// The active segment's index files, written by an earlier clean stop, know nothing of what came later. The recovery point
/// was the segment's end when it rolled, and the process died before the new index files were written: recovery trusted the
/// old ones, so that retention saw a segment much older than it was, and a search by time passed it over.
#[test]
fn index_files_of_an_earlier_stop_are_not_trusted_after_a_roll_cut_short() {
    tokio_uring::start(async {
        let mut world = World::new(TopicConfig::default());
        world.append_and_wait(Batch { timestamp_ms: 100, ..Batch::default() }, Acks::All).await;
        world.close().await;
        world.reopen(true).await;
        world.append_and_wait(Batch { timestamp_ms: 5000, ..Batch::default() }, Acks::All).await;
        world.partition.quiet().await;
        world.save_checkpoints();
        assert_eq!(world.saved.recovery_point, Offset(2));
        fs::write(paths::segment_file(&world.path(), Offset(2), paths::LOG), b"").expect("a roll began");
        world.reopen(false).await;
        let segments: Vec<_> = world.partition.core().segments().iter().cloned().collect();
        let found =
            times::first_since((&segments, &Default::default()), world.partition.files(), (3000, Offset(0)), 4096)
                .await;
        assert_eq!(found.expect("readable").map(|found| found.offset), Some(Offset(1)));
        let retention = TopicConfig { retention_ms: Some(1000), ..TopicConfig::default() };
        world.set_config(retention);
        assert_eq!(world.partition.enforce_retention(5500), 0, "nothing has expired");
    });
}

/// A full segment's indexes were on disk, and a crash took its records: the index files stayed, and told of a greatest
/// timestamp that the log no longer had.
#[test]
fn index_files_of_a_segment_that_was_cut_are_not_asked() {
    tokio_uring::start(async {
        let mut world = World::new(small_segments());
        for timestamp_ms in [50, 100, 60] {
            world.append_and_wait(Batch { timestamp_ms, ..Batch::default() }, Acks::Leader).await;
        }
        world.partition.quiet().await;
        fs::write(&world.files(paths::LOG)[1].1, b"").expect("never flushed");
        world.reopen(false).await;
        let segments: Vec<_> = world.partition.core().segments().iter().cloned().collect();
        let since =
            times::first_since((&segments, &Default::default()), world.partition.files(), (70, Offset(0)), 4096).await;
        assert_eq!(since.expect("readable"), None);
        world.append_and_wait(Batch { timestamp_ms: 40, ..Batch::default() }, Acks::Leader).await;
        let greatest =
            times::greatest((&segments, &Default::default()), world.partition.files(), Offset(0), 4096).await;
        assert_eq!(greatest.expect("readable").map(|found| found.timestamp_ms), Some(50));
    });
}

/// DeleteRecords had put the log's start behind the one record that bears its batch's greatest timestamp: nobody had any.
#[test]
fn the_greatest_timestamp_is_that_of_a_record_that_can_be_read() {
    tokio_uring::start(async {
        let world = World::new(TopicConfig::default());
        for times in [[500, 100, 200], [150, 170, 160]] {
            let mut builder = BatchBuilder::new(Compression::NONE);
            times.into_iter().for_each(|time| builder.push(time, None, Some(b"v"), &[]).expect("small"));
            let bytes = builder.build().expect("has records");
            let header = BatchHeader::parse(&bytes).expect("just built");
            let wait = AppendWait::new();
            world.partition.append(header, bytes, Acks::All, (&wait, 0)).expect("taken");
            wait.done().await;
        }
        for (start, expected) in [(0, (500, 0)), (1, (200, 2)), (3, (170, 4)), (5, (160, 5))] {
            world.partition.delete_records(Offset(start));
            let segments: Vec<_> = world.partition.core().segments().iter().cloned().collect();
            let log = (&segments[..], &Default::default());
            let found = times::greatest(log, world.partition.files(), Offset(start), 4096).await.expect("readable");
            assert_eq!(found.map(|found| (found.timestamp_ms, found.offset.0)), Some(expected), "from {start}");
        }
    });
}

/// A segment below the log's start was still there after a power loss, torn: all segments behind it were taken for what
/// follows damage, and went with it.
#[test]
fn damage_below_the_start_of_a_log_takes_nothing_with_it() {
    tokio_uring::start(async {
        let mut world = World::new(small_segments());
        for _ in 0..3 {
            world.append_and_wait(Batch::default(), Acks::All).await;
        }
        world.partition.quiet().await;
        world.saved.log_start = Some(Offset(1));
        let first = &world.files(paths::LOG)[0].1;
        let whole = fs::metadata(first).expect("there").len();
        fs::File::options().write(true).open(first).expect("open").set_len(whole - 1).expect("torn");
        world.reopen(false).await;
        let ends = world.partition.ends();
        assert_eq!((ends.log_start, ends.log_end), (Offset(1), Offset(3)));
        assert_eq!(world.files(paths::LOG).len(), 2, "it is removed");
    });
}

/// A segment that a clean stop had left with its indexes went on counting as indexed when it was written to again: the
/// recovery point passed it though its new indexes could not be written.
#[test]
fn the_recovery_point_waits_for_the_indexes_of_a_segment_that_was_reopened() {
    tokio_uring::start(async {
        let mut world = World::new(TopicConfig::default());
        world.append_and_wait(Batch::default(), Acks::All).await;
        world.close().await;
        world.reopen(true).await;
        world.append_and_wait(Batch::default(), Acks::All).await;
        fs::create_dir(world.path().join("00000000000000000000.timeindex.tmp")).expect("in the way of the index");
        world.set_config(small_segments());
        world.append_and_wait(Batch::default(), Acks::All).await;
        world.partition.quiet().await;
        assert_eq!(world.partition.ends().flushed, Offset(3));
        assert_eq!(world.partition.core().recovery_point(), Offset(0));
    });
}

/// Recovery cut a segment and died while it removed those that followed: the next start found a whole segment before a gap,
/// and served records from behind it.
#[test]
fn a_recovery_cut_short_leaves_nothing_behind_the_cut() {
    tokio_uring::start(async {
        let mut world = World::new(small_segments());
        for _ in 0..3 {
            world.append_and_wait(Batch::default(), Acks::Leader).await;
        }
        world.partition.quiet().await;
        let files = world.files(paths::LOG);
        fs::File::options().write(true).open(&files[0].1).and_then(|file| file.set_len(70)).expect("torn");
        let in_the_way = world.path().join("00000000000000000001.txnindex");
        fs::create_dir(&in_the_way).expect("stops the recovery");
        let params = OpenParams {
            dir: world.path(),
            clean: false,
            recovery_point: Offset(0),
            log_start: None,
            cleaned: None,
            now_ms: 0,
        };
        assert!(open::open(&params, &world.config, &read_part).is_err());
        fs::remove_dir(&in_the_way).expect("removed");
        world.reopen(false).await;
        assert_eq!(world.partition.ends().log_end, Offset(0));
    });
}

/// A power loss kept the names of two segments, and nothing of what the first should have held: the log had a gap, before
/// which every reader waited for ever, and the producers' sequences had one too.
#[test]
fn segments_beyond_a_gap_that_a_crash_made_are_removed() {
    tokio_uring::start(async {
        let mut world = World::new(small_segments());
        for _ in 0..4 {
            world.append_and_wait(Batch::default(), Acks::Leader).await;
        }
        world.partition.quiet().await;
        let files = world.files(paths::LOG);
        fs::write(&files[1].1, b"").expect("never flushed");
        world.saved.recovery_point = Offset(1);
        let opened = world.reopen(false).await;
        assert_eq!(world.partition.ends().log_end, Offset(1));
        assert_eq!(opened.cuts.iter().filter(|cut| cut.problem.is_some()).count(), 1, "{:?}", opened.cuts);
        assert_eq!(world.append_and_wait(Batch::default(), Acks::All).await.base_offset, Offset(1));
    });
}

/// The process died before a new epoch was in its checkpoint file. Recovery learnt it from the log, but the file went on
/// without it: the next recovery, which trusted the segments in question, did not know the epoch any more.
#[test]
fn an_epoch_that_recovery_learns_is_in_the_checkpoint() {
    tokio_uring::start(async {
        let mut world = World::new(TopicConfig::default());
        world.append_and_wait(Batch::default(), Acks::All).await;
        world.partition.quiet().await;
        let path = world.path().join(paths::LEADER_EPOCH_CHECKPOINT);
        let old = fs::read(&path).expect("written with the first batch");
        world.epoch = LeaderEpoch(1);
        world.set_config(TopicConfig::default());
        world.append_and_wait(Batch::default(), Acks::All).await;
        world.partition.quiet().await;
        fs::write(&path, old).expect("as if the new one had not got there");
        world.reopen(false).await;
        world.set_config(small_segments());
        world.append_and_wait(Batch::default(), Acks::All).await;
        world.partition.quiet().await;
        world.save_checkpoints();
        world.reopen(false).await;
        let core = world.partition.core();
        assert_eq!(core.epochs().entries(), [(LeaderEpoch(0), Offset(0)), (LeaderEpoch(1), Offset(1))]);
    });
}

/// The checkpoint of epochs could not be written once, and nobody tried again.
#[test]
fn an_epoch_checkpoint_that_failed_is_tried_again() {
    tokio_uring::start(async {
        let mut world = World::new(TopicConfig::default());
        world.append_and_wait(Batch::default(), Acks::All).await;
        let in_the_way = world.path().join(format!("{}.tmp", paths::LEADER_EPOCH_CHECKPOINT));
        fs::create_dir(&in_the_way).expect("in the way");
        world.epoch = LeaderEpoch(1);
        world.set_config(TopicConfig::default());
        world.append_and_wait(Batch::default(), Acks::All).await;
        world.partition.quiet().await;
        fs::remove_dir(&in_the_way).expect("removed");
        world.append_and_wait(Batch::default(), Acks::All).await;
        world.partition.quiet().await;
        let text = fs::read_to_string(world.path().join(paths::LEADER_EPOCH_CHECKPOINT)).expect("written");
        assert_eq!(text, "0\n2\n0 0\n1 1\n");
    });
}

/// A thousand partitions that got their first records at once had two syncs each for the checkpoint, which held up the making of
/// each other's directories. It comes with the directory now, and a power cut before any sync may leave it empty.
#[test]
fn the_first_epoch_comes_with_the_directory_and_may_be_lost_with_it() {
    tokio_uring::start(async {
        let mut world = World::new(TopicConfig::default());
        world.append_and_wait(Batch::default(), Acks::Leader).await;
        let path = world.path().join(paths::LEADER_EPOCH_CHECKPOINT);
        assert_eq!(fs::read_to_string(&path).expect("written"), "0\n1\n0 0\n", "before the write is told of");
        world.partition.quiet().await;
        for left in ["", "0\n1\n", "\0\0\0\0\0\0\0\0"] {
            fs::write(&path, left).expect("as a power cut left it");
            let opened = world.reopen(false).await;
            assert!(opened.cuts.is_empty(), "{:?}", opened.cuts);
            assert_eq!(world.partition.core().epochs().entries(), [(LeaderEpoch(0), Offset(0))]);
            assert_eq!(fs::read_to_string(&path).expect("written anew"), "0\n1\n0 0\n");
        }
    });
}

/// The store was put back to an older state than the log: new records bore a lower leader epoch than those before them,
/// and the next recovery cut them as damage, acknowledged as they were.
#[test]
fn records_after_a_fallen_leader_epoch_survive_a_crash() {
    tokio_uring::start(async {
        let mut world = World::new(TopicConfig::default());
        world.epoch = LeaderEpoch(7);
        world.set_config(TopicConfig::default());
        world.append_and_wait(Batch::default(), Acks::All).await;
        world.partition.quiet().await;
        world.epoch = LeaderEpoch(3);
        world.reopen(false).await;
        world.append_and_wait(Batch::default(), Acks::All).await;
        world.partition.quiet().await;
        let opened = world.reopen(false).await;
        assert!(opened.cuts.is_empty(), "{:?}", opened.cuts);
        assert_eq!(world.partition.ends().log_end, Offset(2));
        assert_eq!(world.partition.core().epochs().entries(), [(LeaderEpoch(7), Offset(0))]);
    });
}

/// A file's name, or a line of a checkpoint, can say any offset: from the highest ones on, adding to them overflowed.
#[test]
fn offsets_that_no_log_reaches_are_refused() {
    tokio_uring::start(async {
        let mut world = World::new(TopicConfig::default());
        world.append_and_wait(Batch::default(), Acks::All).await;
        world.close().await;
        let params = |log_start| OpenParams {
            dir: world.path(),
            clean: false,
            recovery_point: Offset(i64::MAX),
            log_start,
            cleaned: None,
            now_ms: 0,
        };
        let open = |log_start| open::open(&params(log_start), &world.config, &read_part);
        let before = world.files(paths::LOG);
        assert!(matches!(open(Some(Offset(i64::MAX))), Err(OpenError::StartTooHigh { .. })));
        assert_eq!(world.files(paths::LOG), before, "nothing is removed for it");
        for suffix in [paths::PRODUCER_SNAPSHOT, paths::OFFSET_INDEX] {
            fs::write(paths::segment_file(&world.path(), Offset(i64::MAX), suffix), b"").expect("planted");
        }
        assert_eq!(open(None).map(|opened| opened.log.end).ok(), Some(Offset(1)));
        let planted = paths::segment_file(&world.path(), Offset(i64::MAX), paths::LOG);
        fs::write(&planted, b"").expect("planted");
        let Err(error) = open(None) else { panic!("refused") };
        assert!(error.to_string().contains("9223372036854775807.log: begins at offset 9223372036854775807"), "{error}");
        fs::remove_file(planted).expect("removed");

        world.saved.log_start = Some(Offset(LOG_OFFSET_MAX));
        world.reopen(false).await;
        let last = world.append_and_wait(Batch { records: 3, ..Batch::default() }, Acks::All).await;
        assert_eq!(last.base_offset, Offset(LOG_OFFSET_MAX));
        let refused = world.append(Batch::default(), Acks::All, &AppendWait::new()).expect_err("used up");
        assert_eq!(refused, "the log cannot be written: its offsets are used up");
        world.partition.quiet().await;
        world.reopen(false).await;
        assert_eq!(world.partition.ends().log_end, Offset(LOG_OFFSET_MAX + 3));
    });
}

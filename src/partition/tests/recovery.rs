//! What recovery does about each kind of tear, what it says of it, and what it need not read.

use super::world::World;
use crate::base::clock::now_ms;
use crate::base::config::TopicConfig;
use crate::base::ids::Offset;
use crate::log::open::{self, OpenError, OpenParams, Shortfall, read_part};
use crate::log::paths;
use crate::log::testing::Batch;
use crate::maintenance::Lane;
use crate::partition::leader::Acks;
use crate::partition::opening::{open_one, with_witness};
use crate::partition::waiters::AppendWait;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Five batches of one record each in one segment, the first three below the recovery point.
async fn five_batches() -> (World, Vec<u8>) {
    let mut world = World::new(TopicConfig::default());
    for number in 0..5 {
        world.append_and_wait(Batch::default(), Acks::All).await;
        if number == 2 {
            world.save_checkpoints();
        }
    }
    world.quiet().await;
    let bytes = fs::read(&world.files(paths::LOG)[0].1).expect("readable");
    (world, bytes)
}

/// Whatever a crash left of the end of a log: it is cut behind the last whole batch, the log line says where, from which offset on
/// and why, and the log goes on there.
#[test]
fn every_tear_is_cut_and_told() {
    tokio_uring::start(async {
        let (_, whole) = five_batches().await;
        let batch = whole.len() / 5;
        let fourth = 3 * batch;
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = whole.clone();
            change(&mut bytes);
            bytes
        };
        let tears = [
            (
                "short header",
                with(&|b| b.truncate(fourth + 20)),
                3,
                "20 bytes are too short for a batch of 61".to_owned(),
            ),
            (
                "short body",
                with(&|b| b.truncate(fourth + batch - 5)),
                3,
                format!("{} bytes are too short for a batch of {batch}", batch - 5),
            ),
            ("wrong CRC", with(&|b| b[fourth + batch - 1] ^= 1), 3, "CRC does not match".to_owned()),
            ("zeroed block", with(&|b| b[fourth..].fill(0)), 3, "no batch header".to_owned()),
            ("garbage after the end", with(&|b| b.extend([0xab; 100])), 5, "no batch header".to_owned()),
            ("zeros after the end", with(&|b| b.extend([0; 4096])), 5, "no batch header".to_owned()),
            (
                "an older batch after the end",
                with(&|b| b.extend_from_within(..batch)),
                5,
                "offset 0 where 5 or a later one is due".to_owned(),
            ),
        ];
        for (what, bytes, end, reason) in tears {
            let (mut world, _) = five_batches().await;
            let path = world.files(paths::LOG)[0].1.clone();
            fs::write(&path, &bytes).expect("torn");
            let opened = world.reopen(false).await;
            let told: Vec<String> = opened.cuts.iter().map(ToString::to_string).collect();
            let position = end as usize * batch;
            let expected = format!(
                "{}: cut at byte {position} ({} bytes, from offset {end} on): {reason}",
                path.display(),
                bytes.len() - position
            );
            assert!(told.len() == 1 && told[0].starts_with(&expected), "{what}: {told:?}, not {expected}");
            assert_eq!(fs::read(&path).expect("readable"), whole[..position], "{what}");
            let appended = world.append_and_wait(Batch::default(), Acks::All).await;
            assert_eq!(appended.base_offset, Offset(end), "{what}");
            world.quiet().await;
            assert!(world.reopen(false).await.cuts.is_empty(), "{what}: nothing is left of it");
        }
    });
}

/// What only repeats the log may be missing or torn: nothing is cut for it, and everything is found as before.
#[test]
fn nothing_is_cut_for_files_that_only_repeat_the_log() {
    tokio_uring::start(async {
        let files = ["00000000000000000000.index", "00000000000000000000.timeindex", "00000000000000000005.snapshot"];
        for clean in [true, false] {
            for torn in [true, false] {
                let (mut world, _) = five_batches().await;
                world.close().await;
                for name in files.into_iter().chain([paths::LEADER_EPOCH_CHECKPOINT]) {
                    let path = world.path().join(name);
                    match torn {
                        true => fs::write(&path, [1, 2, 3]).expect("torn"),
                        false => fs::remove_file(&path).expect("removed"),
                    }
                }
                if !clean {
                    // The directory's checkpoints are missing too.
                    world.saved = Default::default();
                }
                let opened = world.reopen(clean).await;
                assert!(opened.cuts.is_empty(), "{:?}", opened.cuts);
                let ends = world.partition.ends();
                assert_eq!((ends.log_start, ends.log_end), (Offset(0), Offset(5)));
                for offset in 0..5 {
                    assert_eq!(world.read(Offset(offset)).await[0].base_offset, Offset(offset));
                }
                let entries = world.partition.core().epochs().entries().to_vec();
                assert_eq!(entries, [(world.epoch, Offset(0))], "learnt from the log");
            }
        }
    });
}

/// A crash in the middle of a roll, of a segment's making, or of a removal.
#[test]
fn what_a_crash_left_half_done_is_brought_to_an_end() {
    tokio_uring::start(async {
        // The new segment has its name and nothing in it; or what was in flight to it is not whole.
        for (content, cuts) in [(&[][..], 0), (&[7; 30][..], 1)] {
            let (mut world, _) = five_batches().await;
            let path = paths::segment_file(&world.path(), Offset(5), paths::LOG);
            fs::write(&path, content).expect("half made");
            let opened = world.reopen(false).await;
            assert_eq!(opened.cuts.len(), cuts, "{:?}", opened.cuts);
            if let [cut] = &opened.cuts[..] {
                let told = cut.to_string();
                let expected = format!("{}: cut at byte 0 (30 bytes, from offset 5 on): ", path.display());
                assert!(told.starts_with(&expected), "{told}");
            }
            assert_eq!(world.append_and_wait(Batch::default(), Acks::All).await.base_offset, Offset(5));
        }
        // A removal had renamed the first segment, and not what belongs to it.
        let mut world = World::new(TopicConfig { segment_bytes: 200, ..TopicConfig::default() });
        for _ in 0..9 {
            world.append_and_wait(Batch::default(), Acks::All).await;
        }
        world.quiet().await;
        world.save_checkpoints();
        let segments = world.files(paths::LOG);
        let second = segments[1].0;
        let mut marked = segments[0].1.clone().into_os_string();
        marked.push(paths::DELETED_FILE);
        fs::rename(&segments[0].1, &marked).expect("renamed");
        world.saved.log_start = Some(second);
        let opened = world.reopen(false).await;
        assert!(opened.cuts.is_empty(), "{:?}", opened.cuts);
        assert!(world.files(paths::OFFSET_INDEX).iter().all(|(base, _)| *base >= second), "orphans go");
        assert!(!std::path::Path::new(&marked).exists());
        let ends = world.partition.ends();
        assert_eq!((ends.log_start, ends.log_end), (second, Offset(9)));
    });
}

/// A recovery read the whole active segment, up to 1 GiB, however little of it was new.
#[test]
fn what_is_settled_is_not_read_again() {
    tokio_uring::start(async {
        let config = TopicConfig { index_interval_bytes: 100, ..TopicConfig::default() };
        let mut world = World::maintained(config);
        let batch = |sequence| Batch { producer: Some((7, 0, sequence)), ..Batch::default() };
        for sequence in 0..200 {
            world.append_and_wait(batch(sequence), Acks::All).await;
        }
        world.partition.settle().await.expect("settled");
        world.save_checkpoints();
        for round in 0..3 {
            for sequence in 200 + round * 10..210 + round * 10 {
                world.append_and_wait(batch(sequence), Acks::All).await;
            }
            world.quiet().await;
            let (size, ends) = (world.partition.core().size(), world.partition.ends());
            let opened = world.reopen(false).await;
            assert!(opened.cuts.is_empty(), "{:?}", opened.cuts);
            assert!(opened.scanned_bytes < size / 4, "{} of {size} bytes", opened.scanned_bytes);
            assert_eq!(world.partition.ends().log_end, ends.log_end);
            let last = world.append(batch(209 + round * 10), Acks::All, &AppendWait::new()).expect("recognised");
            assert!(last.duplicate_timestamp_ms.is_some(), "the producers are known as before");
            for offset in [0, 42, 199, 205] {
                assert_eq!(world.read(Offset(offset)).await[0].base_offset, Offset(offset));
            }
        }
        // What is settled again is appended to the same files, and they say what a whole scan would.
        world.partition.settle().await.expect("settled");
        world.save_checkpoints();
        let (_, index) = world.files(paths::OFFSET_INDEX).pop().expect("there is one");
        let settled = fs::read(&index).expect("readable");
        world.saved.recovery_point = Offset(0);
        let opened = world.reopen(false).await;
        assert_eq!(opened.scanned_bytes, world.partition.core().size(), "no recovery point, no trust");
        let segment = world.partition.core().segments()[0].clone();
        let (rebuilt, _) = segment.encode_indexes().expect("in memory");
        assert!(settled.len() > 8 * 20, "{} bytes", settled.len());
        assert!(rebuilt.len().abs_diff(settled.len()) <= 8 * 4, "{} and {}", rebuilt.len(), settled.len());
    });
}

/// A segment that is removed while it is being settled takes all its files along: nobody would look for those that came afterwards.
#[test]
fn a_segment_that_goes_while_it_is_settled_leaves_nothing() {
    tokio_uring::start(async {
        let mut world = World::maintained(TopicConfig { retention_ms: Some(1), ..TopicConfig::default() });
        world.reopen(true).await;
        world.append_and_wait(Batch::default(), Acks::All).await;
        // All that settles waits.
        let holders: Vec<_> = (0..2)
            .map(|_| {
                let (go, held) = oneshot::channel::<()>();
                let maintenance = world.shared.maintenance.clone();
                let job = async move { maintenance.run(Lane::Settle, async move |_| drop(held.await)).await };
                (go, tokio::task::spawn_local(job))
            })
            .collect();
        let partition = Rc::clone(&world.partition);
        let settling = tokio::task::spawn_local(async move { partition.settle().await });
        // Long enough for it to reach the lane. Were it not, the test would pass all the same.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(world.partition.enforce_retention(now_ms() + 1_000_000), 1);
        tokio::time::sleep(Duration::from_millis(50)).await;
        for (go, holder) in holders {
            let _ = go.send(());
            holder.await.expect("no panic").expect("not stopped");
        }
        settling.await.expect("no panic").expect("settled, or gone");
        world.quiet().await;
        for suffix in [paths::LOG, paths::OFFSET_INDEX, paths::TIME_INDEX] {
            let first = world.files(suffix).iter().any(|(base, _)| *base == Offset(0));
            assert!(!first, "{suffix} of the first segment");
        }
    });
}

/// Damage below the recovery point must not hide behind what was settled above it, nor an index that tells of another segment.
#[test]
fn what_does_not_fit_is_read_whole() {
    tokio_uring::start(async {
        let config = TopicConfig { index_interval_bytes: 100, ..TopicConfig::default() };
        let mut world = World::maintained(config);
        for _ in 0..50 {
            world.append_and_wait(Batch::default(), Acks::All).await;
        }
        world.partition.settle().await.expect("settled");
        world.save_checkpoints();
        world.append_and_wait(Batch::default(), Acks::All).await;
        world.quiet().await;
        let size = world.partition.core().size();
        let (_, index) = world.files(paths::OFFSET_INDEX).pop().expect("there is one");
        let sound = fs::read(&index).expect("readable");
        let last = sound.len() - 8;
        for (what, at, byte) in [("offset", last + 3, sound[last + 3] - 1), ("position", last + 7, sound[last + 7] ^ 1)]
        {
            let mut bytes = sound.clone();
            bytes[at] = byte;
            fs::write(&index, bytes).expect("damaged");
            let opened = world.reopen(false).await;
            assert!(opened.cuts.is_empty(), "{what}: {:?}", opened.cuts);
            assert_eq!((opened.scanned_bytes, world.partition.ends().log_end), (size, Offset(51)), "{what}");
            fs::write(&index, &sound).expect("restored");
        }
    });
}

/// A flipped bit below the recovery point was taken for a torn end: what lay behind it was cut, although it had been on disk, and nothing
/// could bring it back.
#[test]
fn nothing_that_was_on_disk_is_cut() {
    tokio_uring::start(async {
        let (mut world, mut bytes) = five_batches().await;
        let (path, batch) = (world.files(paths::LOG)[0].1.clone(), bytes.len() / 5);
        bytes[batch + batch / 2 + 20] ^= 1;
        fs::write(&path, &bytes).expect("flipped");
        let params = OpenParams {
            dir: world.path(),
            clean: false,
            recovery_point: world.saved.recovery_point,
            log_start: None,
            cleaned: None,
            now_ms: 0,
        };
        let Err(error) = open::open(&params, &world.config, &read_part) else { panic!("refused") };
        assert!(matches!(error, OpenError::Damaged { offset: Offset(1), recovery_point: Offset(3), .. }), "{error}");
        assert_eq!(fs::read(&path).expect("there"), bytes);
        // Somebody gives up what follows.
        world.saved.recovery_point = Offset(0);
        assert_eq!(world.reopen(false).await.cuts.len(), 1);
        assert_eq!(world.partition.ends().log_end, Offset(1));
    });
}

/// One sector that could not be read at a start took the whole directory offline, at every start.
#[test]
fn a_part_that_cannot_be_read_at_a_start_fails_its_partition_alone() {
    tokio_uring::start(async {
        let (world, bytes) = five_batches().await;
        let segment = world.files(paths::LOG)[0].1.clone();
        for (gone, code) in [(false, libc::EIO), (true, libc::EIO), (false, libc::ENODATA), (false, libc::EBADMSG)] {
            let read = |path: &Path, part: Range<u32>| match gone || path == segment {
                true => Err(std::io::Error::from_raw_os_error(code)),
                false => read_part(path, part),
            };
            let error =
                with_witness(open_one(world.unopened(false), &read), &read).opened.map(drop).expect_err("refused");
            match gone {
                true => assert!(matches!(error, OpenError::Io { .. }), "{error}"),
                false => assert!(matches!(error, OpenError::Unreadable { .. }), "{error}"),
            }
            assert_eq!(fs::read(&segment).expect("there"), bytes, "nothing is cut");
        }
    });
}

/// A log that had lost its end between two batches was taken without a word, however much of it had been on disk.
#[test]
fn an_end_below_the_recovery_point_is_told() {
    tokio_uring::start(async {
        for (clean, batches, expected) in
            [(false, 4, None), (false, 2, Some(3)), (true, 4, Some(5)), (false, 0, Some(3))]
        {
            let (mut world, bytes) = five_batches().await;
            let segment = world.files(paths::LOG)[0].1.clone();
            if clean {
                world.close().await;
            }
            let position = bytes.len() / 5 * batches;
            match batches {
                0 => fs::remove_file(&segment).expect("removed"),
                _ => fs::write(&segment, &bytes[..position]).expect("cut"),
            }
            let opened = world.reopen(clean).await;
            let file = if batches == 0 { world.path() } else { segment };
            let (position, found) = (position as u32, Offset(batches as i64));
            let expected = expected.map(|to| Shortfall { file, position, expected: Offset(to), found });
            assert_eq!(opened.shortfall, expected, "{batches} batches");
            assert!(opened.cuts.is_empty() && (expected.is_none() || !opened.is_clean));
            assert_eq!(world.append_and_wait(Batch::default(), Acks::All).await.base_offset, found, "it goes on");
            world.save_checkpoints();
            assert_eq!(world.reopen(false).await.shortfall, None, "told once");
        }
    });
}

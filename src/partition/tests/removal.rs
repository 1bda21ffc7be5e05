//! Stories of segments that leave the log: in which order their files go, and what must stay behind.

use super::world::World;
use crate::base::clock::now_ms;
use crate::base::config::TopicConfig;
use crate::base::ids::Offset;
use crate::log::paths;
use crate::log::testing::Batch;
use crate::partition::leader::Acks;
use std::fs;

/// One batch a segment.
fn small_segments() -> TopicConfig {
    TopicConfig { segment_bytes: 1, file_delete_delay_ms: 0, retention_ms: Some(1000), ..TopicConfig::default() }
}

fn bases(world: &World) -> Vec<i64> {
    world.files(paths::LOG).iter().map(|(base, _)| base.0).collect()
}

/// Retention took a segment away that was just being sealed. The producers' snapshot at its end was never written, and nothing else
/// told of the producers in it: after a crash a retry was appended once more.
#[test]
fn a_segment_stays_until_the_snapshot_at_its_end_is_on_disk() {
    tokio_uring::start(async {
        let mut world = World::new(small_segments());
        let idempotent = Batch { producer: Some((7, 0, 0)), ..Batch::default() };
        // Nothing is sealed meanwhile.
        let held = world.partition.cleaning.names().acquire_owned().await.expect("open");
        world.append_and_wait(idempotent, Acks::All).await;
        let late = Batch { timestamp_ms: now_ms(), ..Batch::default() };
        world.append_and_wait(late, Acks::All).await;
        assert_eq!(world.partition.enforce_retention(now_ms()), 0, "not before it is sealed");
        assert_eq!(world.partition.ends().log_start, Offset(1), "its records are gone all the same");
        drop(held);
        world.quiet().await;
        assert_eq!(world.partition.enforce_retention(now_ms()), 1);
        world.quiet().await;
        assert_eq!(bases(&world), [1]);
        world.saved.log_start = Some(Offset(1));
        world.reopen(false).await;
        let retried = world.append_and_wait(idempotent, Acks::All).await;
        assert_eq!((retried.base_offset, retried.duplicate_timestamp_ms), (Offset(0), Some(0)));
    });
}

/// A roll that a crash cut short leaves an empty segment. When all before it had expired, a second one of its name was made, and marked
/// as deleted with the first: the next record found no file.
#[test]
fn an_empty_segment_stays_when_all_before_it_expires() {
    tokio_uring::start(async {
        let mut world = World::new(small_segments());
        world.append_and_wait(Batch::default(), Acks::All).await;
        world.quiet().await;
        fs::write(paths::segment_file(&world.path(), Offset(1), paths::LOG), b"").expect("a roll began");
        world.reopen(false).await;
        assert_eq!(world.partition.enforce_retention(now_ms()), 1);
        world.quiet().await;
        assert_eq!(bases(&world), [1], "its name tells where the log ends");
        let appended = world.append_and_wait(Batch::default(), Acks::All).await;
        assert_eq!(appended.base_offset, Offset(1));
        world.reopen(false).await;
        assert_eq!(world.partition.ends().log_end, Offset(2));
    });
}

/// A file could not be renamed, and those that retention took later could: with the checkpoint of log starts lost as well, the log began at the
/// one that had stayed, with a hole behind it.
#[test]
fn a_segment_that_cannot_go_keeps_those_behind_it() {
    tokio_uring::start(async {
        let world = World::new(small_segments());
        for _ in 0..5 {
            world.append_and_wait(Batch::default(), Acks::All).await;
        }
        world.quiet().await;
        let stuck = paths::segment_file(&world.path(), Offset(1), "log.deleted");
        fs::create_dir(&stuck).expect("in the way");
        for to in [3, 4] {
            world.partition.delete_records(Offset(to));
            world.quiet().await;
            assert_eq!(bases(&world), [1, 2, 3, 4], "the first one could go");
        }
        fs::remove_dir(&stuck).expect("empty");
        world.partition.enforce_retention(0);
        world.quiet().await;
        assert_eq!(bases(&world), [4]);
    });
}

/// A file that leaves the log gets another name at once, and is removed only after the delay: whoever reads it by either way reads on.
#[test]
fn what_leaves_the_log_is_renamed_and_read_on() {
    tokio_uring::start(async {
        let world = World::new(TopicConfig { file_delete_delay_ms: 60_000, ..small_segments() });
        for _ in 0..3 {
            world.append_and_wait(Batch::default(), Acks::All).await;
        }
        world.quiet().await;
        let path = paths::segment_file(&world.path(), Offset(0), paths::LOG);
        let bytes = fs::read(&path).expect("there");
        let segment = world.partition.core().segments()[0].clone();
        let held = world.partition.files().file(&segment).expect("open");
        world.partition.delete_records(Offset(2));
        world.quiet().await;
        assert_eq!(bases(&world), [2]);
        let marked = paths::segment_file(&world.path(), Offset(0), &format!("{}{}", paths::LOG, paths::DELETED_FILE));
        assert_eq!(fs::read(marked).expect("renamed, not removed"), bytes);
        assert_eq!(held.read_at(0, bytes.len()).await.expect("readable"), bytes);
    });
}

//! Stories of journals that fail, and of rings that are found.

use super::*;
use crate::base::config::{FlushPolicy, TopicConfig};
use crate::journal::file;
use crate::journal::format::BLOCK;
use crate::log::testing::Batch;
use crate::maintenance::Maintenance;
use crate::partition::leader::Acks;
use crate::partition::table::FoundLogDir;
use crate::partition::tests::world::World;
use crate::partition::waiters::AppendWait;
use std::fs;

const RING_BYTES: u64 = 64 << 10;

/// A group that completed after the journal had failed began a checkpoint of nothing, whose superblock freed everything that
/// the ring still held for the next start.
#[test]
fn a_journal_that_has_failed_keeps_what_it_holds() {
    tokio_uring::start(async {
        let world = World::with_journal(TopicConfig::default(), RING_BYTES).await;
        let journal = world.shared.journal(world.dir.path()).expect("there is one");
        world.append_and_wait(Batch::default(), Acks::All).await;
        let path = file::path(world.dir.path(), 0);
        let before = file::read(&path).expect("whole").expect("there").superblock;
        assert!(journal.ring.borrow().used() > 0);
        journal.fail("the disk said no");
        journal.start_checkpoint();
        journal.quiet().await;
        assert!(journal.checkpoint(false).await.is_err());
        assert_eq!(file::read(&path).expect("whole").expect("there").superblock, before);
        assert!(!journal.close().await, "the next start must look");
        let refused = world.append(Batch::default(), Acks::All, &AppendWait::new());
        assert!(refused.is_err_and(|e| e.contains("the disk said no")));
    });
}

/// What waits for the journal is told when it fails, and a partition that never used it goes on.
#[test]
fn who_waits_for_a_journal_learns_of_its_failure() {
    tokio_uring::start(async {
        let world = World::with_journal(TopicConfig::default(), RING_BYTES).await;
        let journal = world.shared.journal(world.dir.path()).expect("there is one");
        let wait = AppendWait::new();
        world.append(Batch::default(), Acks::All, &wait).expect("taken");
        tokio::task::yield_now().await;
        journal.fail("the disk said no");
        assert_eq!(wait.done().await.len(), 1);
        world.quiet().await;
    });
}

/// A ring that could not be read, or whose records could not be brought back, stopped the whole node.
#[test]
fn a_damaged_ring_takes_its_directory_offline_and_is_left_alone() {
    tokio_uring::start(async {
        let world = World::with_journal(TopicConfig::default(), RING_BYTES).await;
        world.append_and_wait(Batch::default(), Acks::All).await;
        world.quiet().await;
        let path = file::path(world.dir.path(), 0);
        let mut bytes = fs::read(&path).expect("readable");
        bytes[..2 * BLOCK].fill(0xff);
        fs::write(&path, &bytes).expect("damaged");
        let disks = Arc::new(LogDirs::new([(world.dir.path().to_owned(), None)]));
        let found = FoundLogDir { path: world.dir.path().to_owned(), ..FoundLogDir::default() };
        let rings = Rings::read(Settings { shard: 0, ring_bytes: Some(RING_BYTES) }, &[found], &disks);
        let why = disks.failure(world.dir.path()).expect("offline");
        assert!(why.contains("neither superblock is whole"), "{why}");
        assert!(rings.begin(|_| true, &world.shared).await.is_empty());
        assert_eq!(fs::read(&path).expect("there"), bytes);
    });
}

/// Records of topics that the store does not know were dropped with a warning: the store may be an older copy.
#[test]
fn a_ring_with_records_of_unknown_topics_is_set_aside() {
    tokio_uring::start(async {
        let world = World::with_journal(TopicConfig::default(), RING_BYTES).await;
        world.append_and_wait(Batch::default(), Acks::All).await;
        world.quiet().await;
        let found = FoundLogDir { path: world.dir.path().to_owned(), ..FoundLogDir::default() };
        let read =
            |found| Rings::read(Settings { shard: 0, ring_bytes: Some(RING_BYTES) }, &[found], &world.shared.disks);
        let unfinished = read(found.clone()).begin(|_| true, &world.shared).await;
        assert!(unfinished.is_empty(), "its topic is known, and its records are not back in their segments");
        assert!(world.shared.disks.failure(world.dir.path()).is_some_and(|why| why.contains("could not be brought")));
        let sound = PartitionShared::new(3, FlushPolicy::Disk, Default::default(), Maintenance::stopped());
        let begun = read(found).begin(|_| false, &sound).await;
        assert_eq!(begun.len(), 1, "a new ring takes its place");
        let kept = file::path(world.dir.path(), 0).with_extension("unknown");
        assert!(file::read(&kept).expect("whole").is_some_and(|kept| !kept.superblock.clean));
        world.quiet().await;
    });
}

/// Something that does not know the journal used the directory after a crash, and stopped cleanly: its logs are newer than what
/// the ring holds. The mark of the clean stop is gone at the start after next, so the ring must be too.
#[test]
fn a_ring_that_is_older_than_the_logs_is_set_aside() {
    tokio_uring::start(async {
        let world = World::with_journal(TopicConfig::default(), RING_BYTES).await;
        world.append_and_wait(Batch::default(), Acks::All).await;
        let kept = file::set_aside_outdated(world.dir.path()).expect("renamed");
        assert_eq!(kept, [world.dir.path().join("journal-0.outdated")]);
        assert!(file::read(&file::path(world.dir.path(), 0)).expect("readable").is_none());
        assert_eq!(file::set_aside_outdated(world.dir.path()).expect("nothing left"), Vec::<PathBuf>::new());
        fs::metadata(&kept[0]).expect("kept for whoever wants to look");
        world.quiet().await;
    });
}

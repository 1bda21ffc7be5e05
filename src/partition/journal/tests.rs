//! Stories of journals that fail, and of rings that are found.

use super::*;
use crate::base::config::TopicConfig;
use crate::journal::file;
use crate::log::testing::Batch;
use crate::partition::leader::Acks;
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

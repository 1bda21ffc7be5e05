//! Stories of disks that say no.

use super::world::{World, temporary_directory};
use crate::base::clock::now_ms;
use crate::base::config::{BrokerConfig, FlushPolicy, TopicConfig};
use crate::base::disks::{Health, LogDirs};
use crate::base::faults::{Act, Fault, Faults, Place};
use crate::base::ids::{BrokerId, Offset, TopicId};
use crate::base::limits::{UNSYNCED_MS_MAX, WRITE_OUT_BYTES};
use crate::cluster::image::{self, ClusterImage};
use crate::journal::file;
use crate::journal::scan::scan;
use crate::log::testing::Batch;
use crate::maintenance::Maintenance;
use crate::partition::checkpoints::Outdated;
use crate::partition::journal::Rings;
use crate::partition::leader::Acks;
use crate::partition::shared::PartitionShared;
use crate::partition::table::{Forget, FoundLogDir, PartitionTable};
use crate::partition::waiters::{AppendWait, Lost};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

const RING_BYTES: u64 = 64 << 10;

/// A world whose disk does what the cell says, at that place.
async fn world_with(place: Place, journaled: bool) -> (World, Rc<Cell<Option<i32>>>) {
    let errno = Rc::new(Cell::new(None));
    let decides = Rc::clone(&errno);
    let mut world = match journaled {
        true => World::with_journal(TopicConfig::default(), RING_BYTES).await,
        false => World::new(TopicConfig::default()),
    };
    world.set_faults(Faults::by(move |at, _| decides.get().filter(|_| at == place).map(Fault::Error)));
    world.append_and_wait(Batch::default(), Acks::All).await;
    world.quiet().await;
    world.reopen(false).await;
    (world, errno)
}

fn health(world: &World) -> Health {
    world.shared.disks.health(world.dir.path())
}

/// A batch that found no space was failed and forgotten, and with it the whole partition until the next start.
#[test]
fn a_full_disk_takes_records_again_when_it_has_space() {
    tokio_uring::start(async {
        let (mut world, errno) = world_with(Place::Segment, true).await;
        let idempotent = |sequence| Batch { producer: Some((7, 0, sequence)), ..Batch::default() };
        world.append_and_wait(idempotent(0), Acks::All).await;
        errno.set(Some(libc::ENOSPC));
        let wait = AppendWait::new();
        world.append(idempotent(1), Acks::All, &wait).expect("taken: nobody knows yet");
        assert_eq!(wait.done().await.as_slice(), [(0, Lost::Failed)], "KAFKA_STORAGE_ERROR");
        assert_eq!(health(&world), Health::Full);
        let refused = world.append(Batch::default(), Acks::Leader, &AppendWait::new()).expect_err("full");
        assert!(refused.contains("no space left"), "{refused}");
        assert_eq!(world.read(Offset(0)).await.len(), 2, "consumers read on");
        errno.set(None);
        world.shared.disks.set_full(world.dir.path(), false);
        world.partition.heed_disk();
        let retried = world.append_and_wait(idempotent(1), Acks::All).await;
        assert_eq!(retried.base_offset, Offset(2), "the batch that had failed is written, once");
        assert!(retried.duplicate_timestamp_ms.is_some());
        world.append_and_wait(idempotent(2), Acks::All).await;
        world.close().await;
        world.reopen(true).await;
        assert_eq!(world.partition.ends().log_end, Offset(4));
    });
}

/// A stop before there is space: what was refused is not taken for written by the next start, nor its sequence for known.
#[test]
fn a_stop_with_a_full_disk_forgets_what_was_refused() {
    tokio_uring::start(async {
        let (mut world, errno) = world_with(Place::Segment, true).await;
        errno.set(Some(libc::ENOSPC));
        let wait = AppendWait::new();
        let batch = Batch { producer: Some((7, 0, 0)), ..Batch::default() };
        world.append(batch, Acks::All, &wait).expect("taken");
        wait.done().await;
        let closed = tokio::time::timeout(Duration::from_secs(20), async {
            world.partition.close().await.expect("nothing is left to do");
            world.shared.close_journals().await
        });
        assert!(closed.await.expect("ends").is_empty(), "what the ring held is in its segments, or was refused");
        assert!(world.partition.core().failure().is_some(), "so that the directory is not taken for clean");
        errno.set(None);
        world.reopen(false).await;
        let taken = world.append_and_wait(batch, Acks::All).await;
        assert_eq!((taken.base_offset, taken.duplicate_timestamp_ms), (Offset(1), None));
    });
}

#[test]
fn a_failed_write_or_sync_takes_the_directory_offline_for_good() {
    for (place, errno) in [
        (Place::Segment, libc::EIO),
        (Place::Segment, libc::EROFS),
        (Place::Names, libc::EIO),
        (Place::Ring, libc::EIO),
        (Place::Ring, libc::ENOSPC),
    ] {
        tokio_uring::start(async move {
            // A new directory's names are synced with its first records.
            let (mut world, fault) = world_with(place, place != Place::Names).await;
            if place == Place::Names {
                world.dir = temporary_directory();
                world.reopen(true).await;
            }
            fault.set(Some(errno));
            let wait = AppendWait::new();
            world.append(Batch::default(), Acks::All, &wait).expect("taken");
            assert_eq!(wait.done().await.as_slice(), [(0, Lost::Failed)], "{place:?} {errno}");
            assert_eq!(health(&world), Health::Offline, "{place:?} {errno}");
            fault.set(None);
            world.shared.disks.set_full(world.dir.path(), false);
            world.partition.heed_disk();
            assert!(world.append(Batch::default(), Acks::Leader, &AppendWait::new()).is_err());
            world.quiet().await;
        });
    }
}

/// A sync that fails for want of space has lost what it covered like any other.
#[test]
fn a_failed_sync_never_heals() {
    tokio_uring::start(async {
        let mut world = World::new(TopicConfig::default());
        let syncs = Rc::new(Cell::new(0));
        let seen = Rc::clone(&syncs);
        world.set_faults(Faults::by(move |place, act| {
            let is_sync = (place, act) == (Place::Segment, Act::Sync);
            seen.set(seen.get() + u32::from(is_sync));
            is_sync.then_some(Fault::Error(libc::ENOSPC))
        }));
        world.reopen(true).await;
        let wait = AppendWait::new();
        world.append(Batch::default(), Acks::All, &wait).expect("taken");
        assert_eq!(wait.done().await.len(), 1);
        assert_eq!(health(&world), Health::Offline);
        world.partition.heed_disk();
        let _ = world.partition.sync_journaled(Offset(1)).await;
        world.quiet().await;
        assert_eq!(syncs.get(), 1, "it is not tried again");
    });
}

/// What is handed to the disk early is promised to nobody for it; what the disk does not take, nobody can promise any more.
#[test]
fn records_go_to_the_disk_before_a_sync_and_count_only_with_it() {
    for fails in [false, true] {
        tokio_uring::start(async move {
            let mut world = World::new(TopicConfig::default());
            world.set_faults(Faults::by(move |place, act| {
                let is_sync = (place, act) == (Place::Segment, Act::Sync);
                (is_sync && fails).then_some(Fault::Error(libc::EIO))
            }));
            world.reopen(true).await;
            let batch = Batch { value_bytes: 100_000, ..Batch::default() };
            let metrics = Rc::clone(&world.shared);
            let handed_over = || metrics.metrics.written_out_bytes.get();
            while handed_over() == 0 {
                assert!(world.partition.core().written_end() < Offset(20));
                world.append_and_wait(batch, Acks::Leader).await;
            }
            world.quiet().await;
            assert!(handed_over() >= WRITE_OUT_BYTES);
            assert_eq!(world.partition.ends().flushed, Offset(0), "no sync has said so");
            assert_eq!(health(&world), if fails { Health::Offline } else { Health::Sound });
            if !fails {
                world.append_and_wait(batch, Acks::All).await;
                assert_eq!(world.partition.ends().flushed, world.partition.ends().log_end);
            }
        });
    }
}

/// A write that found no space was left with a part of it in the file, which counted as synced: it could be closed, and a write-back that
/// failed later was told to nobody.
#[test]
fn a_part_of_a_write_keeps_its_file_open() {
    tokio_uring::start(async {
        let (world, errno) = world_with(Place::Segment, false).await;
        let is_dirty = || world.partition.core().segments().back().is_some_and(|active| active.is_dirty());
        world.append_and_wait(Batch::default(), Acks::All).await;
        assert!(!is_dirty(), "synced");
        errno.set(Some(libc::ENOSPC));
        let wait = AppendWait::new();
        world.append(Batch::default(), Acks::Leader, &wait).expect("taken");
        assert_eq!(wait.done().await.len(), 1);
        assert!(is_dirty());
    });
}

/// Records of acks=1 waited for the next checkpoint, however far that was.
#[test]
fn what_nobody_waits_for_is_synced_after_a_while() {
    tokio_uring::start(async {
        let world = World::with_journal(TopicConfig::default(), RING_BYTES).await;
        world.append_and_wait(Batch::default(), Acks::Leader).await;
        world.partition.flush_if_due(now_ms() + UNSYNCED_MS_MAX - 10_000);
        world.quiet().await;
        assert_eq!(world.partition.ends().flushed, Offset(0));
        world.partition.flush_if_due(now_ms() + UNSYNCED_MS_MAX);
        world.quiet().await;
        assert_eq!(world.partition.ends().flushed, Offset(1));
        world.append_and_wait(Batch::default(), Acks::All).await;
        world.quiet().await;
        world.partition.flush_if_due(now_ms() + UNSYNCED_MS_MAX);
        world.quiet().await;
        assert_eq!(world.partition.ends().flushed, Offset(1), "what the ring holds is on disk");
    });
}

/// A checkpoint of the journal was under way when the directory went offline: its syncs succeeded, and the tail moved.
#[test]
fn the_tail_of_the_ring_stays_when_its_directory_is_offline() {
    tokio_uring::start(async {
        let mut world = World::with_journal(TopicConfig::default(), RING_BYTES).await;
        let (hung, hangs) = (Rc::new(Notify::new()), Rc::new(Cell::new(true)));
        let (until, does) = (Rc::clone(&hung), Rc::clone(&hangs));
        world.set_faults(Faults::by(move |place, act| {
            ((place, act) == (Place::Segment, Act::Sync) && does.get()).then(|| Fault::Hang(Rc::clone(&until)))
        }));
        world.reopen(false).await;
        world.append_and_wait(Batch::default(), Acks::All).await;
        let journal = world.shared.journal(world.dir.path()).expect("there");
        let checkpoint = tokio::task::spawn_local(async move { journal.outlive().await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.shared.disks.take_offline(world.dir.path(), "another partition's write has failed");
        hangs.set(false);
        hung.notify_waiters();
        checkpoint.await.expect("no panic").expect_err("nothing is freed");
        let found = file::read(&file::path(world.dir.path(), 0)).expect("whole").expect("there");
        assert_eq!(scan(found.area.bytes(), &found.superblock).expect("whole").entries.len(), 1);
    });
}

/// A segment's write hangs while its topic is deleted: that is told, but by itself no reason to give up the directory. Topics that
/// come meanwhile wait.
#[test]
fn a_deletion_waits_for_a_disk_until_it_has_failed() {
    tokio_uring::start(async {
        for fails in [false, true] {
            let (hung, hangs) = (Rc::new(Notify::new()), Rc::new(Cell::new(false)));
            let (until, does) = (Rc::clone(&hung), Rc::clone(&hangs));
            let faults = Faults::by(move |place, act| {
                let hit = place == Place::Segment && matches!(act, Act::Write(_));
                does.set(does.get() || hit);
                hit.then(|| Fault::Hang(Rc::clone(&until)))
            });
            let dir = temporary_directory();
            let disks = Arc::new(LogDirs::new([(dir.path().to_owned(), None)]));
            let shared = PartitionShared::new(64, FlushPolicy::Disk, Arc::default(), Maintenance::stopped());
            let shared = Rc::new(shared.on(Arc::clone(&disks)).with(faults));
            let found = FoundLogDir { path: dir.path().to_owned(), ..FoundLogDir::default() };
            shared.set_journals(Vec::new());
            let table = Rc::new(PartitionTable::new(BrokerId(0), vec![found], Rings::none(), Rc::clone(&shared)));
            let config = BrokerConfig::from_texts(Default::default()).expect("defaults are valid");
            table.open_led(&image_of_one(), &config, false);
            let partition = table.all().pop().expect("open");
            let (header, bytes) = Batch::default().build();
            partition.append(header, bytes, Acks::Leader, (&AppendWait::new(), 0)).expect("taken");
            until_true(|| hangs.get()).await;

            let (forgotten, forget) = forgetting();
            let deleting = Rc::clone(&table);
            let applied = tokio::task::spawn_local(async move {
                deleting.close_within(Duration::ZERO, &ClusterImage::default(), &forget).await;
            });
            until_true(|| shared.metrics.deletions_late.get() == 1).await;
            assert_eq!(disks.health(dir.path()), Health::Sound, "it is slow, no more");
            assert!(!applied.is_finished() && table.all().is_empty(), "its name is not free");
            assert!(forgotten.borrow().is_empty());
            match fails {
                true => disks.take_offline(dir.path(), "another write has failed"),
                false => hung.notify_waiters(),
            }
            applied.await.expect("no panic");
            assert_eq!(forgotten.borrow().len(), 1);
            let unclean = table.close().await;
            assert_eq!(unclean.contains(dir.path()), fails, "what is still under way cannot be called clean");
            assert_eq!(partition.home().dir.exists(), fails);
            hung.notify_waiters();
            partition.quiet().await;
        }
    });
}

/// Writes that hung on one disk took all turns of the shard: partitions on sound disks waited with them.
#[test]
fn a_disk_that_hangs_keeps_no_other_waiting() {
    tokio_uring::start(async {
        let (sick, sound) = (temporary_directory(), temporary_directory());
        let disks = Arc::new(LogDirs::new([&sick, &sound].map(|dir| (dir.path().to_owned(), None))));
        let (hung, writes) = (Rc::new(Notify::new()), Rc::new(Cell::new(0)));
        let (until, count) = (Rc::clone(&hung), Rc::clone(&writes));
        let faults = Faults::by(move |place, act| {
            let is_write = place == Place::Segment && matches!(act, Act::Write(_));
            count.set(count.get() + u32::from(is_write));
            (is_write && count.get() == 1).then(|| Fault::Hang(Rc::clone(&until)))
        });
        // As few descriptors as make one turn.
        let shared = PartitionShared::new(8, FlushPolicy::Disk, Arc::default(), Maintenance::stopped());
        let shared = Rc::new(shared.on(disks).with(faults));
        shared.set_journals(Vec::new());
        let found = [&sick, &sound].map(|dir| FoundLogDir { path: dir.path().to_owned(), ..FoundLogDir::default() });
        let table = Rc::new(PartitionTable::new(BrokerId(0), found.to_vec(), Rings::none(), shared));
        let config = BrokerConfig::from_texts(Default::default()).expect("defaults are valid");
        let mut image = image_of_one();
        let mut topic = (**image.topics.values().next().expect("one")).clone();
        topic.partitions.push(topic.partitions[0].clone());
        let topic = Arc::new(topic);
        image.topics_by_id.insert(topic.id, Arc::clone(&topic));
        image.topics.insert(topic.name.clone(), topic);
        table.open_led(&image, &config, false);
        let mut partitions = table.all();
        partitions.sort_by_key(|partition| partition.home().log_dir != sick.path());
        let send = |at: usize| {
            let ((header, bytes), wait) = (Batch::default().build(), AppendWait::new());
            partitions[at].append(header, bytes, Acks::All, (&wait, 0)).expect("taken");
            wait
        };
        let kept = send(0);
        until_true(|| writes.get() == 1).await;
        let answered = tokio::time::timeout(Duration::from_secs(20), async { send(1).done().await.len() }).await;
        assert_eq!(answered, Ok(0));
        assert!(!kept.is_done());
        hung.notify_waiters();
        assert!(kept.done().await.is_empty());
        partitions[0].quiet().await;
        partitions[1].quiet().await;
    });
}

/// A ring that was found damaged took its directory offline after the node had been looked through; a partition of which only that ring had
/// anything began anew in another one.
#[test]
fn a_partition_that_may_be_on_a_lost_disk_does_not_begin_anew() {
    tokio_uring::start(async {
        let (lost, other) = (temporary_directory(), temporary_directory());
        let disks = Arc::new(LogDirs::new([&lost, &other].map(|dir| (dir.path().to_owned(), None))));
        let shared = PartitionShared::new(64, FlushPolicy::Disk, Arc::default(), Maintenance::stopped());
        let shared = Rc::new(shared.on(Arc::clone(&disks)));
        let found = [&lost, &other].map(|dir| FoundLogDir { path: dir.path().to_owned(), ..FoundLogDir::default() });
        let table = Rc::new(PartitionTable::new(BrokerId(0), found.to_vec(), Rings::none(), shared));
        disks.take_offline(lost.path(), "its ring is damaged");
        let config = BrokerConfig::from_texts(Default::default()).expect("defaults are valid");
        let mut image = image_of_one();
        table.open_led(&image, &config, false);
        let partition = table.all().pop().expect("known");
        assert!(partition.core().failure().is_some(), "it is not served");
        let made_now = image_of_one();
        let topic = made_now.topics.values().next().expect("one");
        image.topics.insert("new".into(), Arc::new(image::Topic { name: "new".into(), ..(**topic).clone() }));
        image.topics_by_id.insert(topic.id, Arc::clone(&image.topics["new"]));
        table.open_led(&image, &config, false);
        let new = table.topic("new").expect("led").partitions().next().cloned().expect("open");
        assert!(new.core().failure().is_none() && new.home().log_dir == other.path(), "topics are made on the other");
    });
}

/// A shard that leads one partition.
fn image_of_one() -> ClusterImage {
    let partition = image::Partition::led_by(BrokerId(0));
    let topic = Arc::new(image::Topic {
        name: "t".into(),
        id: TopicId::random(),
        is_internal: false,
        partitions: vec![partition],
        settings: Default::default(),
    });
    let mut image = ClusterImage::default();
    image.topics.insert(topic.name.clone(), Arc::clone(&topic));
    image.topics_by_id.insert(topic.id, topic);
    image
}

/// What the checkpoint files were told to forget.
pub fn forgetting() -> (Rc<RefCell<Vec<Outdated>>>, Forget) {
    let forgotten: Rc<RefCell<Vec<Outdated>>> = Rc::default();
    let noted = Rc::clone(&forgotten);
    let forget: Forget = Rc::new(move |outdated| {
        noted.borrow_mut().push(outdated);
        Box::pin(std::future::ready(()))
    });
    (forgotten, forget)
}

async fn until_true(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Two syncs of a file ran side by side: the kernel tells only one of them that a write-back has failed, and the other one took the records for
/// safe.
#[test]
fn one_sync_of_a_partition_is_under_way_at_a_time() {
    tokio_uring::start(async {
        let mut world = World::new(TopicConfig::default());
        let (hung, hangs, begun) = (Rc::new(Notify::new()), Rc::new(Cell::new(true)), Rc::new(Cell::new(0)));
        let (until, does, count) = (Rc::clone(&hung), Rc::clone(&hangs), Rc::clone(&begun));
        world.set_faults(Faults::by(move |place, act| {
            let is_sync = (place, act) == (Place::Segment, Act::Sync);
            count.set(count.get() + u32::from(is_sync));
            (is_sync && does.get()).then(|| Fault::Hang(Rc::clone(&until)))
        }));
        world.reopen(true).await;
        let wait = AppendWait::new();
        world.append(Batch::default(), Acks::All, &wait).expect("taken");
        let release = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(begun.get(), 1, "the second one waits for the first");
            hangs.set(false);
            hung.notify_waiters();
        };
        let (synced, _, ()) = tokio::join!(world.partition.sync_journaled(Offset(1)), wait.done(), release);
        synced.expect("nothing fails");
        assert_eq!(begun.get(), 1, "and finds that nothing is left to sync");
    });
}

/// A write to the ring that hung kept everything waiting, and the stop as well.
#[test]
fn a_ring_that_does_not_answer_takes_its_directory_offline_and_lets_the_node_stop() {
    tokio_uring::start(async {
        let mut world = World::with_journal(TopicConfig::default(), RING_BYTES).await;
        let (hung, hangs) = (Rc::new(Notify::new()), Rc::new(Cell::new(false)));
        let (until, does) = (Rc::clone(&hung), Rc::clone(&hangs));
        world.set_faults(Faults::by(move |place, act| {
            let is_write = place == Place::Ring && matches!(act, Act::Write(_));
            (is_write && does.get()).then(|| Fault::Hang(Rc::clone(&until)))
        }));
        world.reopen(false).await;
        world.append_and_wait(Batch::default(), Acks::All).await;
        hangs.set(true);
        let wait = AppendWait::new();
        world.append(Batch::default(), Acks::All, &wait).expect("taken");
        assert_eq!(wait.done().await.len(), 1, "told when the ring has had its time");
        assert_eq!(health(&world), Health::Offline);
        let path = world.dir.path().to_owned();
        let unclean = tokio::time::timeout(Duration::from_secs(10), world.shared.close_journals()).await;
        assert_eq!(unclean.expect("ends although the write has not"), std::slice::from_ref(&path));
        hangs.set(false);
        hung.notify_waiters();
        world.partition.quiet().await;
        assert!(!file::read(&file::path(&path, 0)).expect("whole").expect("there").superblock.clean);
        world.reopen(false).await;
        assert!(world.partition.ends().log_end >= Offset(1), "what was acknowledged is there");
    });
}

//! Stories of a slice and its log. A restart is a second coordinator that reads the same log.

mod room;
mod time;
mod turns;

use super::*;
use crate::base::config::{FlushPolicy, TopicConfig};
use crate::base::disks::LogDirs;
use crate::base::faults::{Fault, Faults, Place};
use crate::base::ids::{BrokerId, LeaderEpoch, Offset, TopicId, TopicPartition};
use crate::cluster::image::{self, Topic};
use crate::group::classic::{Effect, Event, MemberClaim};
use crate::group::consumer;
use crate::group::consumer::pattern::NO_MATCHES;
use crate::group::offsets::TopicPartitionName;
use crate::group::records::{CommittedOffset, Key};
use crate::log::core::LogCore;
use crate::maintenance::Maintenance;
use crate::partition::materialise::Home;
use crate::partition::shared::PartitionShared;
use std::time::Duration;
use tempfile::TempDir;

const GROUP: &str = "g";
const DAY_MS: i64 = 86_400_000;

struct World {
    dir: TempDir,
    shared: Rc<PartitionShared>,
    partition: Rc<Partition>,
    image: Arc<ClusterImage>,
    errno: Rc<Cell<Option<i32>>>,
}

impl World {
    fn new(max_message_bytes: u32) -> World {
        let dir = tempfile::tempdir().expect("temporary directory");
        let errno = Rc::new(Cell::new(None));
        let decides = Rc::clone(&errno);
        let faults = Faults::by(move |at, _| decides.get().filter(|_| at == Place::Segment).map(Fault::Error));
        let disks = Arc::new(LogDirs::new([(dir.path().to_owned(), None)]));
        let shared = PartitionShared::new(8, FlushPolicy::Os, Arc::default(), Maintenance::stopped());
        let shared = Rc::new(shared.on(disks).with(faults));
        let id = TopicPartition { topic: TopicId::random(), partition: PartitionIndex(0) };
        let home = Home::new(dir.path(), OFFSETS_TOPIC, id.partition, false);
        let core = LogCore::empty(Rc::clone(&home.dir), Offset(0));
        let config = Rc::new(TopicConfig { max_message_bytes, ..TopicConfig::default() });
        let shares = Rc::clone(&shared);
        let partition = Partition::new(id, OFFSETS_TOPIC.into(), LeaderEpoch(0), config, (core, home), shares);
        World { dir, shared, partition, image: image_of(&["t", "u"]), errno }
    }

    /// The coordinator as the next start has it.
    async fn coordinator(&self) -> (Coordinator, Rc<Slice>) {
        self.coordinator_by(Clock::default()).await
    }

    async fn coordinator_by(&self, clock: Clock) -> (Coordinator, Rc<Slice>) {
        let coordinator = Coordinator::with_clock(settings(), clock);
        coordinator.set_image(&self.image);
        coordinator.leads(&[Rc::clone(&self.partition)]);
        let slice = Rc::clone(&coordinator.slices()[0]);
        while slice.check_loaded() == Err(ResponseError::CoordinatorLoadInProgress) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (coordinator, slice)
    }

    fn set_full(&self, full: bool) {
        self.shared.disks.set_full(self.dir.path(), full);
        self.partition.heed_disk();
    }
}

fn settings() -> Settings {
    Settings {
        limits: Limits { members_max: 10, session_min_ms: 1, session_max_ms: 100_000, initial_delay_ms: 0 },
        consumer: consumer::Limits {
            session_ms: 10_000,
            heartbeat_ms: 1000,
            members_max: 10,
            assignors: vec![consumer::assign::Assignor::Uniform],
            policy: consumer::Policy::parse("disabled"),
        },
        retention_ms: 7 * DAY_MS,
        metadata_bytes_max: 4096,
        bytes_max: 1 << 20,
    }
}

/// Each has an id of its own, in each image.
fn image_of(names: &[&str]) -> Arc<ClusterImage> {
    let mut image = ClusterImage { version: 1, ..ClusterImage::default() };
    for name in names {
        let partition = image::Partition::led_by(BrokerId(0));
        let topic = Arc::new(Topic {
            name: Arc::from(*name),
            id: TopicId::random(),
            is_internal: false,
            partitions: vec![partition],
            settings: BTreeMap::new(),
        });
        image.topics.insert(Arc::clone(&topic.name), Arc::clone(&topic));
        image.topics_by_id.insert(topic.id, topic);
    }
    Arc::new(image)
}

fn of(topic: &str, partition: i32) -> TopicPartitionName {
    (topic.to_owned(), partition)
}

fn begin_commit(
    slice: &Rc<Slice>,
    offsets: &[(TopicPartitionName, i64)],
) -> impl Future<Output = Result<(), ResponseError>> + use<> {
    begin_commit_of(slice, GROUP, offsets)
}

fn begin_commit_of(
    slice: &Rc<Slice>,
    group: &str,
    offsets: &[(TopicPartitionName, i64)],
) -> impl Future<Output = Result<(), ResponseError>> + use<> {
    let nobody = MemberClaim { generation: -1, member_id: String::new(), instance_id: None };
    let value = |offset: &i64| CommittedOffset {
        offset: *offset,
        leader_epoch: -1,
        metadata: String::new(),
        committed_ms: crate::base::clock::now_ms(),
        expires_ms: None,
    };
    let offsets = offsets.iter().map(|(of, offset)| (of.clone(), value(offset))).collect();
    slice.commit(group, (&nobody, false), offsets).unwrap_or_else(|error| panic!("refused: {error:?}"))
}

async fn commit(slice: &Rc<Slice>, topic: &str, offset: i64) {
    begin_commit(slice, &[(of(topic, 0), offset)]).await.expect("stored");
}

fn committed(slice: &Rc<Slice>, topic: &str) -> Option<i64> {
    slice.view(GROUP, |view| view.offsets.get(topic, 0).map(|committed| committed.offset)).flatten()
}

/// 10,000 offsets of a group, or 40 where a batch has 500 bytes: their tombstones have to be several batches.
#[test]
fn a_group_is_deleted_whose_tombstones_do_not_fit_into_one_batch() {
    tokio_uring::start(async {
        let world = World::new(500);
        let (_, slice) = world.coordinator().await;
        for partition in 0..40 {
            begin_commit(&slice, &[(of("t", partition), 7)]).await.expect("stored");
        }
        let deleted = slice.delete_group(GROUP).expect("it has no members");
        deleted.done().await.expect("stored");
        assert_eq!(slice.ids(), [""; 0]);
        let (_, slice) = world.coordinator().await;
        assert_eq!(slice.ids(), [""; 0], "after a restart");
    });
}

#[test]
fn what_the_log_refuses_to_forget_is_not_forgotten() {
    tokio_uring::start(async {
        let world = World::new(1 << 20);
        let (coordinator, slice) = world.coordinator().await;
        commit(&slice, "t", 7).await;
        world.set_full(true);
        let refused = slice.delete_group(GROUP).expect("it has no members").done().await;
        assert_eq!(refused, Err(ResponseError::NotCoordinator));
        let refused = slice.delete_offsets(GROUP, &[of("t", 0)]).done().await;
        assert_eq!(refused, Err(ResponseError::NotCoordinator), "the group with its last offset neither");
        coordinator.expire(i64::MAX).await.expect("ended");
        assert_eq!(committed(&slice, "t"), Some(7), "a retry finds it");
        world.set_full(false);
        slice.delete_offsets(GROUP, &[of("t", 0), of("t", 0)]).done().await.expect("stored");
        assert_eq!(slice.ids(), [""; 0]);
        let (_, slice) = world.coordinator().await;
        assert_eq!(slice.ids(), [""; 0]);
    });
}

/// A tombstone alone may be too large, where the topic was given a smaller max.message.bytes.
#[test]
fn a_tombstone_that_does_not_fit_is_an_unknown_error_and_a_commit_an_invalid_size() {
    tokio_uring::start(async {
        let world = World::new(1 << 20);
        let (_, slice) = world.coordinator().await;
        commit(&slice, "t", 7).await;
        let small = TopicConfig { max_message_bytes: 70, ..TopicConfig::default() };
        world.partition.update(LeaderEpoch(0), Rc::new(small));
        let refused = slice.delete_group(GROUP).expect("it has no members").done().await;
        assert_eq!(refused, Err(ResponseError::UnknownServerError));
        let refused = slice.delete_offsets(GROUP, &[of("t", 0)]).done().await;
        assert_eq!(refused, Err(ResponseError::UnknownServerError), "though the group's own would fit");
        assert_eq!(committed(&slice, "t"), Some(7));
        let refused = begin_commit(&slice, &[(of("t", 0), 8)]).await;
        assert_eq!(refused, Err(ResponseError::InvalidCommitOffsetSize));
    });
}

#[test]
fn a_group_does_not_come_back_with_a_commit_that_was_under_way() {
    tokio_uring::start(async {
        let world = World::new(1 << 20);
        let (_, slice) = world.coordinator().await;
        let first = begin_commit(&slice, &[(of("t", 0), 7)]);
        let deleted = slice.delete_group(GROUP).expect("it has no members");
        assert_eq!(first.await, Ok(()));
        deleted.done().await.expect("stored");
        assert_eq!(slice.ids(), [""; 0]);
        let (_, slice) = world.coordinator().await;
        assert_eq!(slice.ids(), [""; 0], "after a restart");
    });
}

#[test]
fn an_offset_does_not_come_back_with_a_commit_that_was_under_way() {
    tokio_uring::start(async {
        let world = World::new(1 << 20);
        let (_, slice) = world.coordinator().await;
        begin_commit(&slice, &[(of("t", 0), 5), (of("u", 0), 5)]).await.expect("stored");
        let second = begin_commit(&slice, &[(of("t", 0), 10)]);
        let deleted = slice.delete_offsets(GROUP, &[of("t", 0)]);
        assert_eq!(second.await, Ok(()));
        deleted.done().await.expect("stored");
        for slice in [slice, world.coordinator().await.1] {
            assert_eq!((committed(&slice, "t"), committed(&slice, "u")), (None, Some(5)));
        }
    });
}

/// The group went on at the old topic's offset, and skipped the new topic's first records.
#[test]
fn offsets_go_with_their_topic() {
    tokio_uring::start(async {
        let world = World::new(1 << 20);
        let (coordinator, slice) = world.coordinator().await;
        begin_commit(&slice, &[(of("t", 0), 1000), (of("u", 0), 5)]).await.expect("stored");
        let late = begin_commit(&slice, &[(of("t", 0), 1001)]);
        // Of the same name already, as a shard may see no image between the two.
        let mut after = ClusterImage::clone(&image_of(&["t"]));
        let kept = world.image.topic("u").expect("there");
        after.topics.insert(Arc::clone(&kept.name), Arc::clone(kept));
        after.topics_by_id.insert(kept.id, Arc::clone(kept));
        coordinator.set_image(&Arc::new(after));
        assert_eq!((committed(&slice, "t"), committed(&slice, "u")), (None, Some(5)));
        assert_eq!(late.await, Ok(()));
        assert_eq!(committed(&slice, "t"), None, "it was asked for before");
        let (_, again) = world.coordinator().await;
        assert_eq!((committed(&again, "t"), committed(&again, "u")), (None, Some(5)), "after a restart");
        commit(&slice, "t", 3).await;
        assert_eq!(committed(&slice, "t"), Some(3), "of the new topic");
        let (_, slice) = world.coordinator().await;
        assert_eq!(committed(&slice, "t"), Some(3), "after a restart");
    });
}

#[test]
fn offsets_of_a_topic_that_went_while_nobody_led_them_go_when_they_are_loaded() {
    tokio_uring::start(async {
        let mut world = World::new(1 << 20);
        let (_, slice) = world.coordinator().await;
        begin_commit(&slice, &[(of("t", 0), 1000), (of("u", 0), 5)]).await.expect("stored");
        let before = std::mem::replace(&mut world.image, image_of(&["u"]));
        let (_, slice) = world.coordinator().await;
        assert_eq!((committed(&slice, "t"), committed(&slice, "u")), (None, Some(5)));
        // Behind the tombstone.
        commit(&slice, "u", 6).await;
        world.image = before;
        let (_, slice) = world.coordinator().await;
        assert_eq!(committed(&slice, "t"), None, "one of its name is another one");
    });
}

/// The image that tells of the deletion comes while the partition is being loaded.
#[test]
fn offsets_of_a_topic_that_goes_while_they_are_loaded_go() {
    tokio_uring::start(async {
        let world = World::new(1 << 20);
        let (_, slice) = world.coordinator().await;
        commit(&slice, "t", 1000).await;
        let coordinator = Coordinator::new(settings());
        coordinator.set_image(&world.image);
        coordinator.leads(&[Rc::clone(&world.partition)]);
        coordinator.set_image(&image_of(&["t"]));
        let slice = Rc::clone(&coordinator.slices()[0]);
        while slice.check_loaded().is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(committed(&slice, "t"), None);
    });
}

#[test]
fn offsets_go_with_their_topic_though_the_disk_is_full() {
    tokio_uring::start(async {
        let mut world = World::new(1 << 20);
        let (coordinator, slice) = world.coordinator().await;
        begin_commit(&slice, &[(of("t", 0), 1000), (of("u", 0), 5)]).await.expect("stored");
        world.set_full(true);
        world.image = image_of(&["t", "u"]);
        coordinator.set_image(&world.image);
        assert_eq!((committed(&slice, "t"), committed(&slice, "u")), (None, None));
        world.set_full(false);
        commit(&slice, "u", 6).await;
        coordinator.expire(crate::base::clock::now_ms()).await.expect("ended");
        assert_eq!(committed(&slice, "u"), Some(6), "of the new topic");
        // Behind the tombstones.
        commit(&slice, "u", 7).await;
        let (_, slice) = world.coordinator().await;
        assert_eq!((committed(&slice, "t"), committed(&slice, "u")), (None, Some(7)), "after a restart");
    });
}

/// A commit that was told to have failed is written when the disk has space: memory must say what the log will.
#[test]
fn a_commit_that_found_no_space_counts_when_it_is_written() {
    tokio_uring::start(async {
        let world = World::new(1 << 20);
        let (_, slice) = world.coordinator().await;
        commit(&slice, "t", 50).await;
        world.errno.set(Some(libc::ENOSPC));
        let refused = begin_commit(&slice, &[(of("t", 0), 100)]).await;
        assert_eq!(refused, Err(ResponseError::NotCoordinator));
        assert_eq!(committed(&slice, "t"), Some(50), "nobody knows yet");
        world.errno.set(None);
        world.set_full(false);
        let counts = async {
            while committed(&slice, "t") != Some(100) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), counts).await.expect("it is in the log");
        let (_, slice) = world.coordinator().await;
        assert_eq!(committed(&slice, "t"), Some(100), "after a restart");
    });
}

/// A log directory that is missing was told as a group that never committed anything.
#[test]
fn a_log_that_is_offline_has_no_groups_to_tell_of() {
    tokio_uring::start(async {
        let world = World::new(1 << 20);
        let (_, slice) = world.coordinator().await;
        commit(&slice, "t", 50).await;
        world.shared.disks.take_offline(world.dir.path(), "gone");
        world.partition.heed_disk();
        let (coordinator, slice) = world.coordinator().await;
        assert_eq!(slice.check_loaded(), Err(ResponseError::CoordinatorNotAvailable));
        assert_eq!(coordinator.slice_of(PartitionIndex(0)).err(), Some(ResponseError::CoordinatorNotAvailable));
    });
}

/// It went on to count sessions and answer heartbeats, and refused what had to be stored.
#[test]
fn groups_are_given_up_when_their_log_directory_goes_offline() {
    tokio_uring::start(async {
        let world = World::new(1 << 20);
        let (coordinator, slice) = world.coordinator().await;
        commit(&slice, "t", 50).await;
        let epoch = slice.heartbeat("new", &time::joining("new"), &NO_MATCHES).expect("joined").wait().await;
        assert_eq!(epoch.expect("stored").epoch, 1);
        let waiting = slice.ask("classic", true, |waiter| Event::Join(waiter, time::join_request(100_000)));
        world.shared.disks.take_offline(world.dir.path(), "gone");
        world.partition.heed_disk();
        // Nobody asks for it meanwhile: the shard is told of its disks.
        coordinator.heed_disks();
        let told = tokio::time::timeout(Duration::from_secs(30), waiting.expect("made")).await;
        let told = told.expect("who waits is told").expect("with an answer");
        assert!(
            matches!(told, Effect::Joined(_, answer) if answer.error == Some(ResponseError::CoordinatorNotAvailable))
        );
        assert_eq!(coordinator.slice_of(PartitionIndex(0)).err(), Some(ResponseError::CoordinatorNotAvailable));
        assert_eq!(slice.ids(), [""; 0], "what memory has is not told as if it could last");
    });
    // And where a request comes first.
    tokio_uring::start(async {
        let world = World::new(1 << 20);
        let (coordinator, _) = world.coordinator().await;
        world.shared.disks.take_offline(world.dir.path(), "gone");
        world.partition.heed_disk();
        assert_eq!(coordinator.slice_of(PartitionIndex(0)).err(), Some(ResponseError::CoordinatorNotAvailable));
    });
}

/// A record that nobody can read took nothing away: what the group had committed long before counted again.
#[test]
fn a_partition_with_a_record_that_cannot_be_read_is_not_served() {
    tokio_uring::start(async {
        let world = World::new(1 << 20);
        let (_, slice) = world.coordinator().await;
        commit(&slice, "t", 50).await;
        // Of a share group in Apache Kafka 4.
        let strange = store::append(&world.partition, &[(Key::Other { version: 11 }, Some(vec![0, 0]))]);
        strange.done().await.expect("stored");
        let (_, slice) = world.coordinator().await;
        assert_eq!(committed(&slice, "t"), Some(50), "what is not known is passed over");
        let newer = (super::forget::offset_key(GROUP, &of("t", 0)), Some(vec![0, 99, 1, 2, 3]));
        store::append(&world.partition, &[newer]).done().await.expect("stored");
        let (_, slice) = world.coordinator().await;
        assert_eq!(slice.check_loaded(), Err(ResponseError::CoordinatorNotAvailable));
        assert_eq!(committed(&slice, "t"), None);
    });
}

/// As Java counts: `(name.hashCode() & 0x7fffffff) % 50`.
#[test]
fn a_group_has_the_partition_that_kafka_gives_it() {
    for (name, index) in [("", 0), ("a", 47), ("g", 3), ("console-consumer-1", 24), ("größe", 7), ("😀", 49)] {
        assert_eq!(partition_of(name, 50), PartitionIndex(index), "{name}");
    }
}

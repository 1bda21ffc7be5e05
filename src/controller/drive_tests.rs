//! The control plane over a real store file, with shards that are channels.

use super::super::handle::{ConfigChange, ConfigOp, ConfigResource, ControlHandle, NewTopic, TopicRef};
use super::*;
use crate::base::ids::{LeaderEpoch, ShardId};
use crate::base::limits::CONTROL_COMMANDS_MAX;
use crate::cluster::image::Topic;
use crate::coordination::embedded::{EmbeddedSession, EmbeddedStore, FILE_NAME};
use crate::coordination::{CreateMode, Op};
use std::cell::RefCell;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

const CLUSTER: &str = "vPeOCWypqUOSepEvx0cbog";

/// A running control plane of node 0, with so many shards.
struct Node {
    store: EmbeddedStore,
    session: EmbeddedSession,
    handle: ControlHandle,
    /// What each shard serves by.
    served: Vec<Rc<RefCell<Arc<ClusterImage>>>>,
    running: JoinHandle<Result<(), ControlError>>,
    shutdown: oneshot::Sender<()>,
}

impl Node {
    async fn start(file: &Path, shards: u16, unclean: bool) -> Node {
        Node::on(EmbeddedStore::open(file).unwrap(), NodeId(0), shards, unclean).await
    }

    async fn on(store: EmbeddedStore, node: NodeId, shards: u16, unclean: bool) -> Node {
        let session = store.connect();
        let (commands, received) = mpsc::channel(CONTROL_COMMANDS_MAX);
        let (shutdown, stopped) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        let (queues, served): (Vec<_>, Vec<_>) = (0..shards).map(|_| shard()).unzip();
        let broker = |shard| Broker {
            id: BrokerId::new(node, ShardId(shard)),
            host: Some("localhost".into()),
            port: 9092 + shard,
            rack: None,
        };
        let params = Params {
            store: Store::Embedded(session.clone()),
            node,
            cluster_id: CLUSTER.into(),
            brokers: (0..shards).map(broker).collect(),
            config: Arc::new(BrokerConfig::from_texts(BTreeMap::new()).unwrap()),
            unclean,
            seed: fastrand::u64(..),
            commands: received,
            shards: queues,
            ready,
            shutdown: stopped,
        };
        let running = spawn_local(run(params));
        let image = is_ready.await.expect("the control plane starts");
        served.iter().for_each(|served| assert_eq!(served.borrow().version, image.version, "applied before ready"));
        Node { store, session, handle: ControlHandle::new(commands, Default::default()), served, running, shutdown }
    }

    fn image(&self) -> Arc<ClusterImage> {
        let images: Vec<Arc<ClusterImage>> = self.served.iter().map(|served| Arc::clone(&served.borrow())).collect();
        assert!(images.iter().all(|image| Arc::ptr_eq(image, &images[0])), "all shards serve by one image");
        images[0].check_invariants();
        Arc::clone(&images[0])
    }

    async fn create(&self, name: &str, partitions: i32) -> AdminResult<Arc<Topic>> {
        let topic = NewTopic {
            name: name.into(),
            partitions,
            replication_factor: 1,
            assignment: BTreeMap::new(),
            settings: vec![("retention.ms".into(), Some("-1".into()))],
        };
        let created = self.handle.create_topics(vec![topic], false).await?.remove(0)?;
        let topic = Arc::clone(self.image().topic(name).expect("published before it is answered"));
        assert_eq!((topic.id, topic.partitions.len() as i32), (created.id, created.partitions));
        Ok(topic)
    }

    async fn delete(&self, name: &str) -> AdminResult<()> {
        self.handle.delete_topics(vec![TopicRef::Name(name.into())]).await?.remove(0)?;
        assert!(self.image().topic(name).is_none(), "gone before it is answered");
        Ok(())
    }

    async fn stop(self) {
        self.shutdown.send(()).unwrap();
        self.running.await.unwrap().unwrap();
    }

    /// The process is gone between two instructions.
    async fn kill(self) {
        self.running.abort();
        let _ = self.running.await;
    }
}

/// A shard that applies every image at once.
fn shard() -> (mpsc::Sender<ShardUpdate>, Rc<RefCell<Arc<ClusterImage>>>) {
    let (queue, mut updates) = mpsc::channel::<ShardUpdate>(2);
    let served = Rc::new(RefCell::new(Arc::default()));
    let serving = Rc::clone(&served);
    spawn_local(async move {
        while let Some(update) = updates.recv().await {
            *serving.borrow_mut() = update.image;
            let _ = update.applied.send(());
        }
    });
    (queue, served)
}

fn local<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test)
}

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE_NAME);
    (dir, file)
}

fn topics(image: &ClusterImage) -> BTreeMap<Arc<str>, Topic> {
    image.topics.iter().map(|(name, topic)| (Arc::clone(name), (**topic).clone())).collect()
}

#[test]
fn what_was_answered_is_there_after_a_clean_restart() {
    local(async {
        let (_dir, file) = scratch();
        let node = Node::start(&file, 3, false).await;
        assert_eq!(node.image().brokers.len(), 3);
        assert_eq!(node.image().controller, Some(BrokerId(0)));
        node.create("a", 5).await.unwrap();
        node.create("b", 2).await.unwrap();
        let retention = vec![("retention.ms".to_string(), ConfigOp::Set("77".into()))];
        let change = |resource, ops| ConfigChange { resource, replace_all: false, ops };
        let changes = vec![
            change(ConfigResource::Topic("a".into()), retention),
            change(ConfigResource::Broker("".into()), vec![("log.retention.ms".into(), ConfigOp::Set("5".into()))]),
            change(ConfigResource::Broker("2".into()), vec![("log.retention.ms".into(), ConfigOp::Set("6".into()))]),
        ];
        assert_eq!(node.handle.alter_configs(changes, false).await.unwrap(), [Ok(()), Ok(()), Ok(())]);
        let more = vec![super::super::handle::MorePartitions { topic: "b".into(), count: 4, assignment: None }];
        assert_eq!(node.handle.create_partitions(more, false).await.unwrap(), [Ok(())]);
        node.create("c", 1).await.unwrap();
        node.delete("c").await.unwrap();
        let before = node.image();
        node.stop().await;

        let node = Node::start(&file, 3, false).await;
        let after = node.image();
        assert_eq!(topics(&after), topics(&before));
        assert_eq!(after.topic("a").unwrap().settings["retention.ms"], "77");
        assert_eq!(after.topic("b").unwrap().partitions.len(), 4);
        assert_eq!(after.broker_defaults["log.retention.ms"], "5");
        assert_eq!(after.node_settings[&NodeId(0)]["log.retention.ms"], "6");
        assert_eq!(after.brokers, before.brokers);
    });
}

#[test]
fn an_unclean_stop_gives_new_leader_epochs_before_the_first_image() {
    local(async {
        let (_dir, file) = scratch();
        let node = Node::start(&file, 2, false).await;
        let before = node.create("t", 4).await.unwrap();
        node.kill().await;
        let node = Node::start(&file, 2, true).await;
        let after = Arc::clone(node.image().topic("t").unwrap());
        for (old, new) in before.partitions.iter().zip(&after.partitions) {
            assert_eq!(new.leader, old.leader);
            assert_eq!(new.leader_epoch, LeaderEpoch(old.leader_epoch.0 + 1));
            assert_eq!(new.partition_epoch, old.partition_epoch + 1);
            assert_eq!(new.incarnation, old.incarnation);
        }
        node.kill().await;
        // What was raised is in the store.
        let node = Node::start(&file, 2, false).await;
        assert_eq!(**node.image().topic("t").unwrap(), *after);
    });
}

/// Producer ids are never handed out twice, whatever ends the process.
#[test]
fn blocks_of_producer_ids_follow_each_other_over_restarts() {
    local(async {
        let (_dir, file) = scratch();
        for life in 0..3 {
            let node = Node::start(&file, 1, life > 0).await;
            let first = node.handle.allocate_producer_ids().await.unwrap();
            let second = node.handle.allocate_producer_ids().await.unwrap();
            assert_eq!((first, second), ((life * 2000, 1000), (life * 2000 + 1000, 1000)));
            node.kill().await;
        }
    });
}

#[test]
fn small_changes_share_the_other_topics() {
    local(async {
        let (_dir, file) = scratch();
        let node = Node::start(&file, 2, false).await;
        let large = node.create("large", 500).await.unwrap();
        let version = node.image().version;
        node.create("small", 1).await.unwrap();
        assert!(Arc::ptr_eq(node.image().topic("large").unwrap(), &large));
        assert_eq!(node.image().version, version + 1);
        let again = node.create("small", 1).await.unwrap_err();
        assert_eq!(again.code, ResponseError::TopicAlreadyExists);
        assert_eq!(node.image().version, version + 1, "a refusal publishes nothing");
    });
}

/// The journal of a large creation and deletion, which take several requests each, ends at any place: the topic is
/// there in whole, or not at all, and what was answered before is there.
#[test]
fn a_crash_within_a_large_change_leaves_no_half_topic() {
    const PARTITIONS: i32 = 4000;
    local(async {
        let (dir, file) = scratch();
        let node = Node::start(&file, 2, false).await;
        let small = node.create("small", 3).await.unwrap();
        let (answered_small, created) = (node.store.file_bytes(), node.create("large", PARTITIONS).await.unwrap());
        let answered_large = node.store.file_bytes();
        node.delete("large").await.unwrap();
        let deleted = node.store.file_bytes();
        node.kill().await;
        let journal = std::fs::read(&file).unwrap();
        let (mut finished, mut absent) = (0, 0);
        let span = deleted - answered_small;
        let cuts = (0..=14).map(|step| answered_small + span * step / 14).chain([answered_large, deleted - 1]);
        for cut in cuts {
            let copy = dir.path().join("copy");
            std::fs::write(&copy, &journal[..cut as usize]).unwrap();
            let node = Node::start(&copy, 2, true).await;
            let image = node.image();
            assert_eq!(image.topic("small").unwrap().id, small.id, "cut at {cut}");
            match image.topic("large") {
                Some(topic) => {
                    finished += 1;
                    assert_eq!((topic.partitions.len() as i32, topic.id), (PARTITIONS, created.id));
                    node.delete("large").await.unwrap();
                }
                None => absent += 1,
            }
            assert!(cut != deleted || image.topic("large").is_none());
            assert!(cut != answered_large || image.topic("large").is_some());
            node.create("large", 1).await.unwrap();
            node.kill().await;
        }
        assert!(finished > 2 && absent > 2, "{finished} finished, {absent} absent");
    });
}

#[test]
fn ten_thousand_partitions_come_and_go() {
    local(async {
        let (_dir, file) = scratch();
        let node = Node::start(&file, 4, false).await;
        let start = std::time::Instant::now();
        let topic = node.create("wide", 10_000).await.unwrap();
        let created = start.elapsed();
        node.delete("wide").await.unwrap();
        eprintln!("10,000 partitions: created in {created:?}, deleted in {:?}", start.elapsed() - created);
        let start = std::time::Instant::now();
        node.create("narrow", 1000).await.unwrap();
        eprintln!("1,000 partitions: created in {:?}", start.elapsed());
        let mut shares = [0; 4];
        topic.partitions.iter().for_each(|partition| shares[partition.replicas[0].0 as usize] += 1);
        assert_eq!(shares, [2500; 4]);
        assert!(node.store.file_bytes() < 16 << 20, "the file is bounded: {}", node.store.file_bytes());
    });
}

/// KAFKA-1096, 6082: a controller that does not know of its successor must not write. Here someone raises the epoch
/// behind its back; the next write is refused, and only a new election lets it go on.
#[test]
fn a_write_under_an_old_epoch_is_refused() {
    local(async {
        let (_dir, file) = scratch();
        let node = Node::start(&file, 1, false).await;
        let other = node.store.connect();
        let (epoch, stat) = other.get(layout::CONTROLLER_EPOCH).await.unwrap();
        other.set(layout::CONTROLLER_EPOCH, "41".into(), Some(stat.version)).await.unwrap();
        node.create("t", 1).await.unwrap();
        let (now, _) = other.get(layout::CONTROLLER_EPOCH).await.unwrap();
        assert_eq!((&epoch[..], &now[..]), (&b"1"[..], &b"42"[..]), "elected anew before it wrote");
        let (state, _) = other.get("/brokers/topics/t/partitions/0/state").await.unwrap();
        assert!(String::from_utf8_lossy(&state).contains(r#""controller_epoch":42"#));
    });
}

#[test]
fn a_second_node_refuses_commands_until_the_first_is_gone() {
    local(async {
        let (_dir, file) = scratch();
        let first = Node::start(&file, 1, false).await;
        first.create("t", 1).await.unwrap();
        let second = Node::on(first.store.clone(), NodeId(1), 2, false).await;
        assert!(second.image().topic("t").is_some());
        assert_eq!(second.image().controller, Some(BrokerId(0)));
        assert_eq!(second.create("u", 1).await.unwrap_err().code, ResponseError::NotController);
        let brokers: Vec<i32> = first.image().brokers.keys().map(|id| id.0).collect();
        assert_eq!(brokers, [0, 1000, 1001], "the first has learned of the second");
        first.stop().await;
        tokio::task::yield_now().await;
        second.create("u", 2).await.unwrap();
        assert_eq!(second.image().controller, Some(BrokerId(1000)));
        assert_eq!(second.image().brokers.len(), 2);
    });
}

#[test]
fn a_change_made_behind_the_image_is_noticed() {
    local(async {
        let (_dir, file) = scratch();
        let node = Node::start(&file, 1, false).await;
        let other = node.store.connect();
        let partition = crate::cluster::image::Partition {
            leader: Some(BrokerId(0)),
            leader_epoch: LeaderEpoch(3),
            partition_epoch: 0,
            replicas: vec![BrokerId(0)],
            isr: vec![BrokerId(0)],
            incarnation: 9,
        };
        let id = crate::base::ids::TopicId::random();
        let replicas = [partition.replicas.clone()];
        let create = |path: String, data| Op::create(path, data, CreateMode::Persistent);
        other
            .multi(vec![
                create(layout::topic_path("t"), layout::encode_topic(id, replicas.iter().map(Vec::as_slice))),
                create(layout::partitions_path("t"), Default::default()),
                create(layout::partition_path("t", 0), Default::default()),
                create(layout::state_path("t", 0), layout::encode_state(&partition, 1)),
            ])
            .await
            .unwrap();
        let error = node.create("t", 1).await.unwrap_err();
        assert_eq!(error.code, ResponseError::TopicAlreadyExists);
        assert_eq!(node.image().topic("t").unwrap().partitions, [partition]);
    });
}

/// A crash, or a full store, between two requests of one creation can leave a topic's settings without the topic.
#[test]
fn settings_without_their_topic_do_not_keep_its_name() {
    local(async {
        let (_dir, file) = scratch();
        let node = Node::start(&file, 1, false).await;
        let other = node.store.connect();
        let orphan = layout::encode_config(&BTreeMap::from([("retention.ms".to_string(), "5".to_string())]));
        other.create(&layout::topic_config_path("t"), orphan, CreateMode::Persistent).await.unwrap();
        assert_eq!(node.create("t", 1).await.unwrap().settings["retention.ms"], "-1", "its own, not the leftover's");
        node.stop().await;
        let node = Node::start(&file, 1, false).await;
        assert_eq!(node.image().topic("t").unwrap().settings["retention.ms"], "-1");
    });
}

#[test]
fn what_cannot_be_is_refused_at_the_start() {
    local(async {
        let (_dir, file) = scratch();
        let node = Node::start(&file, 1, false).await;
        let taken = node.store.connect();
        let broker = Broker { id: BrokerId(0), host: None, port: 1, rack: None };
        let error = election::register(&Store::Embedded(taken.clone()), &[broker]).await.unwrap_err();
        assert!(matches!(error, ControlError::BrokerTaken(BrokerId(0))), "{error}");
        let error = election::prepare(&Store::Embedded(taken), NodeId(0), "another").await.unwrap_err();
        assert!(matches!(error, ControlError::OtherCluster { .. }), "{error}");
    });
}

#[test]
fn an_expired_session_ends_the_control_plane() {
    local(async {
        let (_dir, file) = scratch();
        let node = Node::start(&file, 1, false).await;
        node.store.expire(node.session.session()).unwrap();
        let error = node.running.await.unwrap().unwrap_err();
        assert!(matches!(error, ControlError::Store(StoreError::SessionExpired)), "{error}");
    });
}

#[test]
fn a_shard_that_ends_ends_the_control_plane() {
    local(async {
        let (queue, updates) = mpsc::channel(1);
        drop(updates);
        let published = publish(&[queue], &Arc::default(), Duration::from_secs(5)).await;
        assert_eq!(published, Published::ShardGone);
    });
}

#[test]
fn a_slow_shard_does_not_hold_an_answer_for_ever() {
    local(async {
        let (slow, mut updates) = mpsc::channel(1);
        let (quick, served) = shard();
        let image = Arc::new(ClusterImage { version: 7, ..ClusterImage::default() });
        let shards = [slow, quick];
        assert_eq!(publish(&shards, &image, Duration::from_millis(50)).await, Published::Late(1));
        assert_eq!(served.borrow().version, 7);
        assert_eq!(updates.recv().await.unwrap().image.version, 7, "it finds the image when it gets to it");
    });
}

//! What handlers reach: the shard's own state and its handle to the control plane.

use super::RequestInfo;
use super::brokers::{self, advertised_host};
use super::fetch::session::FetchSessions;
use super::init_producer_id::ProducerIdBlock;
use crate::base::config::BrokerConfig;
use crate::base::ids::{BrokerId, NodeId, PartitionIndex, ShardId};
use crate::base::limits::GROUPS_BYTES_MAX;
use crate::base::metrics::ShardMetrics;
use crate::base::owner::Owner;
use crate::cluster::image::ClusterImage;
use crate::controller::handle::ControlHandle;
use crate::group::classic::Limits;
use crate::group::consumer::{self, assign::Assignor};
use crate::group::coordinator::{Coordinator, OFFSETS_TOPIC, Settings};
use crate::partition::checkpoints::{CheckpointSender, Outdated};
use crate::partition::table::{Forget, PartitionTable};
use kafka_protocol::protocol::StrBytes;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Checkpoints that must be written first, and could not be, are tried again after so long, and so often: nothing else of the image is
/// taken over meanwhile, and at a start nothing is served.
const FORGET_AGAIN: Duration = Duration::from_millis(500);
const FORGET_TRIES: usize = 20;

/// One shard's state; lives and dies on its thread.
pub struct ShardContext {
    pub node: NodeId,
    pub shard: ShardId,
    pub broker: BrokerId,
    pub control: ControlHandle,
    pub partitions: Rc<PartitionTable>,
    pub checkpoints: CheckpointSender,
    pub metrics: Arc<ShardMetrics>,
    owner: Owner,
    pub sessions: RefCell<FetchSessions>,
    pub producer_ids: RefCell<ProducerIdBlock>,
    pub groups: Coordinator,
    /// Settings of the file and the command line; the image's dynamic ones are laid over them in `config`.
    static_config: Arc<BrokerConfig>,
    config: RefCell<Arc<BrokerConfig>>,
    image: RefCell<Arc<ClusterImage>>,
}

/// A broker as NOT_LEADER_OR_FOLLOWER answers name it (KIP-951).
pub struct LeaderHint {
    pub leader: BrokerId,
    pub leader_epoch: i32,
    pub host: StrBytes,
    pub port: i32,
    pub rack: Option<StrBytes>,
}

impl ShardContext {
    pub fn new(
        broker: BrokerId,
        control: ControlHandle,
        config: Arc<BrokerConfig>,
        (partitions, checkpoints): (Rc<PartitionTable>, CheckpointSender),
        image: Arc<ClusterImage>,
    ) -> Self {
        let slots = config.max_incremental_fetch_session_cache_slots as usize;
        let context = ShardContext {
            node: broker.node(),
            shard: broker.shard(),
            broker,
            control,
            metrics: Arc::clone(&partitions.shared().metrics),
            owner: Owner::here(),
            partitions,
            checkpoints,
            sessions: RefCell::new(FetchSessions::new(slots)),
            producer_ids: RefCell::default(),
            groups: Coordinator::new(group_settings(&config)),
            config: RefCell::new(Arc::clone(&config)),
            static_config: config,
            image: RefCell::default(),
        };
        context.set_image(image);
        context
    }

    /// Debug builds panic on any other thread than the shard's own.
    #[inline]
    pub fn assert_owner(&self) {
        self.owner.assert();
    }

    /// The newest image that this shard has applied.
    pub fn image(&self) -> Arc<ClusterImage> {
        Arc::clone(&self.image.borrow())
    }

    /// The settings in force.
    pub fn config(&self) -> Arc<BrokerConfig> {
        Arc::clone(&self.config.borrow())
    }

    /// Makes `image`, with its dynamic settings, the one that requests see from now on. Returns whether settings of the
    /// broker changed.
    pub fn set_image(&self, image: Arc<ClusterImage>) -> bool {
        let none = BTreeMap::new();
        let node_of = |image: &ClusterImage| image.node_settings.get(&self.node).unwrap_or(&none).clone();
        self.groups.set_image(&image);
        let before = self.image.replace(Arc::clone(&image));
        let (defaults, node) = (&image.broker_defaults, node_of(&image));
        if *defaults == before.broker_defaults && node == node_of(&before) {
            return false;
        }
        let (config, refused) = self.static_config.with_dynamic(defaults, &node);
        for (name, error) in refused {
            tracing::warn!("the stored setting {name} is left out: {error}");
        }
        self.groups.set_settings(group_settings(&config));
        self.config.replace(Arc::new(config));
        true
    }

    /// Takes over a new image: partitions that this shard leads now are open when it returns, or being opened if they lie on
    /// disk; those that are gone are closed. Requests see the image before the partitions go, so that none reaches a closed one. Checkpoints that speak of
    /// an earlier life of a topic are corrected before its new one can take records there.
    pub async fn apply(self: &Rc<Self>, image: Arc<ClusterImage>) {
        let settings_changed = self.set_image(Arc::clone(&image));
        let this = Rc::clone(self);
        let forget: Forget = Rc::new(move |outdated| {
            let this = Rc::clone(&this);
            Box::pin(async move { this.forget(&outdated).await })
        });
        self.partitions.close_deleted(&image, &forget).await;
        self.partitions.open_led(&image, &self.config(), settings_changed);
        self.lead_groups();
    }

    /// A new life that was opened before could lose its records to the log start of the old one. It waits for descriptors, or for space on
    /// the disk; one that has failed is not written to, and nothing is opened there. What lasts is not waited for.
    async fn forget(&self, outdated: &Outdated) {
        for _ in 0..FORGET_TRIES {
            match self.checkpoints.save_without(self.partitions.checkpoints(), outdated.clone()).await {
                Ok(()) => return,
                Err(e) => tracing::error!("checkpoints still speak of deleted partitions, and are tried again: {e}"),
            }
            tokio::time::sleep(FORGET_AGAIN).await;
        }
        tracing::error!(
            "checkpoints still speak of deleted partitions: a crash now could take records of their successors"
        );
    }

    /// Whether there is such a partition, whoever leads it.
    pub fn exists(&self, topic: &str, index: PartitionIndex) -> bool {
        self.image.borrow().topic(topic).is_some_and(|topic| topic.partition(index).is_some())
    }

    /// Whether this shard is to lead a partition, as far as the image tells.
    pub fn leads(&self, topic: &str, index: PartitionIndex) -> bool {
        let image = self.image.borrow();
        let partition = image.topic(topic).and_then(|topic| topic.partition(index));
        partition.is_some_and(|partition| partition.leader == Some(self.broker))
    }

    /// Has the coordinator take up the groups of partitions that this shard leads, as far as they are open.
    pub fn lead_groups(&self) {
        let led = self.partitions.topic(OFFSETS_TOPIC);
        let led = led.iter().flat_map(|topic| topic.partitions()).filter(|partition| partition.leads());
        self.groups.leads(&led.cloned().collect::<Vec<_>>());
    }

    /// Who leads a partition that this shard does not lead, for a client that asked here.
    pub fn leader_hint(&self, info: &RequestInfo, topic: &str, index: PartitionIndex) -> Option<LeaderHint> {
        let image = self.image.borrow();
        let partition = image.topic(topic)?.partition(index)?;
        // Not ourselves: a log that is still being opened is no reason to ask here again at once.
        let broker = image.brokers.get(&partition.leader.filter(|leader| *leader != self.broker)?)?;
        Some(LeaderHint {
            leader: broker.id,
            leader_epoch: partition.leader_epoch.0,
            host: advertised_host(broker, info.local_addr),
            port: i32::from(broker.port),
            rack: brokers::rack(broker),
        })
    }

    /// How many partitions the topic of groups and offsets has; None while there is none.
    pub fn offsets_partitions(&self) -> Option<u32> {
        let image = self.image.borrow();
        image.topic(OFFSETS_TOPIC).and_then(|topic| u32::try_from(topic.partitions.len()).ok())
    }

    /// Shard 0 of node 0 with default settings.
    #[cfg(test)]
    pub fn for_tests(image: ClusterImage, control: ControlHandle) -> std::rc::Rc<Self> {
        let config = BrokerConfig::from_texts(Default::default()).expect("defaults are valid");
        ShardContext::configured_for_tests(image, control, config)
    }

    #[cfg(test)]
    pub fn configured_for_tests(
        image: ClusterImage,
        control: ControlHandle,
        config: BrokerConfig,
    ) -> std::rc::Rc<Self> {
        ShardContext::on_disks_for_tests(image, control, config, Arc::new(crate::base::disks::LogDirs::new([])))
    }

    #[cfg(test)]
    pub fn on_disks_for_tests(
        image: ClusterImage,
        control: ControlHandle,
        config: BrokerConfig,
        disks: Arc<crate::base::disks::LogDirs>,
    ) -> std::rc::Rc<Self> {
        use crate::maintenance::Maintenance;
        use crate::partition::shared::PartitionShared;
        use std::rc::Rc;
        let me = BrokerId::new(NodeId(0), ShardId(0));
        let shared = PartitionShared::new(64, config.flush_policy, Arc::default(), Maintenance::stopped());
        let shared = Rc::new(shared.on(disks));
        let partitions = PartitionTable::new(me, Vec::new(), crate::partition::journal::Rings::none(), shared);
        let (sender, _) = tokio::sync::mpsc::channel(1);
        let checkpoints = CheckpointSender::new(0, sender, Arc::default());
        Rc::new(ShardContext::new(me, control, Arc::new(config), (Rc::new(partitions), checkpoints), Arc::new(image)))
    }
}

fn group_settings(config: &BrokerConfig) -> Settings {
    let groups = &config.groups;
    Settings {
        consumer: consumer::Limits {
            session_ms: groups.consumer_session_ms,
            heartbeat_ms: groups.consumer_heartbeat_ms,
            members_max: groups.consumer_members_max,
            assignors: groups.consumer_assignors.iter().filter_map(|name| Assignor::parse(name)).collect(),
            policy: consumer::Policy::parse(&groups.consumer_migration_policy),
        },
        limits: Limits {
            members_max: groups.members_max,
            session_min_ms: groups.session_min_ms,
            session_max_ms: groups.session_max_ms,
            initial_delay_ms: groups.initial_delay_ms,
        },
        retention_ms: groups.retention_ms,
        metadata_bytes_max: groups.metadata_bytes_max,
        bytes_max: GROUPS_BYTES_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::{add_topic, image};
    use crate::base::config::FlushPolicy;
    use crate::base::ids::Offset;
    use crate::maintenance::Maintenance;
    use crate::partition::checkpoints::SaveCheckpoints;
    use crate::partition::shared::PartitionShared;
    use crate::partition::table::FoundLogDir;
    use std::rc::Rc;
    use tokio::sync::mpsc;

    fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn settings_in_force_follow_the_image() {
        let control = ControlHandle::new(mpsc::channel(1).0, Arc::default());
        let context = ShardContext::for_tests(ClusterImage::default(), control);
        let max_connections = || context.config().max_connections_per_ip;
        assert_eq!(max_connections(), i32::MAX as u32);

        let everywhere = texts(&[("max.connections.per.ip", "10")]);
        let mut image = ClusterImage { broker_defaults: everywhere, ..ClusterImage::default() };
        context.set_image(Arc::new(image.clone()));
        assert_eq!(max_connections(), 10);

        image.node_settings.insert(NodeId(0), texts(&[("max.connections.per.ip", "7")]));
        image.node_settings.insert(NodeId(1), texts(&[("max.connections.per.ip", "1")]));
        context.set_image(Arc::new(image));
        assert_eq!(max_connections(), 7);

        context.set_image(Arc::new(ClusterImage::default()));
        assert_eq!(max_connections(), i32::MAX as u32);
    }

    /// A context whose checkpoint file tells of an earlier life of topic t; an image that has another one; where its parts go.
    fn before_a_new_life(dir: &std::path::Path) -> (Rc<ShardContext>, ClusterImage, mpsc::Receiver<SaveCheckpoints>) {
        let key = ("t".to_string(), PartitionIndex(0));
        let found =
            FoundLogDir { path: dir.to_path_buf(), log_starts: [(key, Offset(1000))].into(), ..FoundLogDir::default() };
        let shared = Rc::new(PartitionShared::new(8, FlushPolicy::Disk, Arc::default(), Maintenance::stopped()));
        let table = PartitionTable::new(BrokerId(0), vec![found], crate::partition::journal::Rings::none(), shared);
        let (sender, parts) = mpsc::channel(1);
        let checkpoints = CheckpointSender::new(0, sender, Arc::default());
        let control = ControlHandle::new(mpsc::channel(1).0, Arc::default());
        let config = Arc::new(BrokerConfig::from_texts(Default::default()).expect("defaults are valid"));
        let none = Arc::new(ClusterImage::default());
        let context = ShardContext::new(BrokerId(0), control, config, (Rc::new(table), checkpoints), none);
        let mut image = image(1);
        add_topic(&mut image, "t", &[0]);
        (Rc::new(context), image, parts)
    }

    /// A topic was deleted and created again within one image, or across a crash: its new life took records while the
    /// checkpoint files still told the old one's log start. A crash then made recovery empty the new log.
    #[tokio::test(flavor = "current_thread")]
    async fn a_new_life_takes_no_records_before_the_checkpoints_forget_the_old_one() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let key = ("t".to_string(), PartitionIndex(0));
        let (context, image, mut parts) = before_a_new_life(dir.path());
        let save = async {
            let part = parts.recv().await.expect("sent");
            assert!(part.outdated.contains(&(dir.path().to_path_buf(), key.clone())));
            part.saved.send(Err(std::io::Error::other("no descriptor is left"))).expect("awaited");
            let part = parts.recv().await.expect("sent again");
            assert!(part.outdated.contains(&(dir.path().to_path_buf(), key.clone())));
            assert!(context.partitions.topic("t").is_none(), "not before the files are written");
            part.saved.send(Ok(())).expect("awaited");
        };
        let both = async { tokio::join!(context.apply(Arc::new(image)), save) };
        tokio::task::LocalSet::new().run_until(both).await;
        assert!(context.partitions.topic("t").is_some());
    }

    /// Nothing else of the image is taken over meanwhile, so that it must end.
    #[tokio::test(flavor = "current_thread")]
    async fn checkpoints_that_cannot_be_written_are_tried_again_and_not_for_ever() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (context, image, mut parts) = before_a_new_life(dir.path());
        let refuse = async {
            for _ in 0..FORGET_TRIES {
                assert!(context.partitions.topic("t").is_none());
                let part = parts.recv().await.expect("tried again");
                part.saved.send(Err(std::io::Error::other("no descriptor is left"))).expect("awaited");
            }
        };
        let both = async { tokio::join!(context.apply(Arc::new(image)), refuse) };
        tokio::task::LocalSet::new().run_until(both).await;
        assert!(context.partitions.topic("t").is_some() && parts.try_recv().is_err());
    }
}

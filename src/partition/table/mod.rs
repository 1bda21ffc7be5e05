//! The partitions that a shard leads, found by topic name or id, and kept in step with the cluster image.

mod deletions;
mod homes;
mod openings;

use self::deletions::CLOSING_MAX;
pub use self::deletions::Forget;
use self::openings::Opening;
use super::journal::Rings;
use super::leader::Partition;
use super::materialise::Home;
use super::opening::{self, Unopened};
use super::shared::PartitionShared;
use crate::base::config::{BrokerConfig, TopicConfig};
use crate::base::disks::Health;
use crate::base::ids::{BrokerId, LeaderEpoch, PartitionIndex, TopicId, TopicPartition};
use crate::cluster::image::{self, ClusterImage, Topic};
use crate::log::checkpoint::PartitionOffsets;
use crate::log::core::LogCore;
use futures_util::stream::{self, StreamExt};
use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tracing::{error, info, warn};

/// What was found in one of `log.dirs` at start.
#[derive(Clone, Debug, Default)]
pub struct FoundLogDir {
    pub path: PathBuf,
    /// The last stop was clean: partitions need no scan.
    pub clean: bool,
    pub recovery_points: PartitionOffsets,
    pub log_starts: PartitionOffsets,
    /// Up to where logs were compacted.
    pub cleaned: PartitionOffsets,
    /// Partition directories in it, with the topic id that each one bears.
    pub partitions: HashMap<(String, PartitionIndex), Option<TopicId>>,
    /// Those of which the topic id could not be read, although it was on disk once; and why.
    pub unnamed: HashMap<(String, PartitionIndex), String>,
}

/// The partitions that this shard leads.
pub struct PartitionTable {
    me: BrokerId,
    shared: Rc<PartitionShared>,
    topics: RefCell<Topics>,
    log_dirs: RefCell<Vec<LogDirState>>,
    /// Logs that an unclean stop left to be checked, and the bytes read for it, since that was last told.
    recovered: Cell<(usize, u64)>,
    /// What the journals that are not in use yet hold for logs that are not open.
    rings: RefCell<Rings>,
    /// Logs that the maintenance thread is opening.
    openings: RefCell<HashMap<TopicPartition, Opening, foldhash::fast::RandomState>>,
    /// There are fewer of them.
    opened: Notify,
    opener: RefCell<Vec<AbortHandle>>,
    /// Of topics that are gone: not deleted yet.
    deleting: RefCell<HashMap<TopicPartition, Rc<Partition>>>,
    /// Topics that are gone, and of which something is still being opened.
    closing: RefCell<HashSet<TopicId>>,
    /// The first image has been applied.
    started: Cell<bool>,
}

/// What became of a partition that this shard is to lead.
enum Begun {
    Opening(Box<Unopened>),
    /// Nothing is on disk, neither in a directory nor in a journal; or the disk is offline.
    Made(Box<(LogCore, Home)>),
}

#[derive(Default)]
struct Topics {
    by_name: HashMap<Arc<str>, Rc<LocalTopic>, foldhash::fast::RandomState>,
    by_id: HashMap<TopicId, Rc<LocalTopic>, foldhash::fast::RandomState>,
}

/// A topic of which this shard leads something.
pub struct LocalTopic {
    pub topic: Arc<Topic>,
    config: Rc<TopicConfig>,
    /// By partition index; empty: its log is not open here.
    partitions: Vec<OnceCell<Rc<Partition>>>,
}

struct LogDirState {
    found: FoundLogDir,
    /// Partitions of this shard that live here: new ones go where there are fewest, as in Kafka.
    count: usize,
}

impl LocalTopic {
    pub fn partition(&self, index: PartitionIndex) -> Option<&Rc<Partition>> {
        self.held(index).filter(|partition| partition.leads())
    }

    /// Those that this shard leads.
    pub fn partitions(&self) -> impl Iterator<Item = &Rc<Partition>> {
        self.open().filter(|partition| partition.leads())
    }

    /// Led or not, its log is open here.
    fn held(&self, index: PartitionIndex) -> Option<&Rc<Partition>> {
        self.partitions.get(usize::try_from(index.0).ok()?)?.get()
    }

    fn open(&self) -> impl Iterator<Item = &Rc<Partition>> {
        self.partitions.iter().filter_map(OnceCell::get)
    }
}

impl PartitionTable {
    pub fn new(me: BrokerId, log_dirs: Vec<FoundLogDir>, rings: Rings, shared: Rc<PartitionShared>) -> PartitionTable {
        let log_dirs = log_dirs.into_iter().map(|found| LogDirState { found, count: 0 }).collect();
        PartitionTable {
            me,
            shared,
            topics: RefCell::default(),
            log_dirs: RefCell::new(log_dirs),
            recovered: Cell::default(),
            rings: RefCell::new(rings),
            openings: RefCell::default(),
            opened: Notify::new(),
            opener: RefCell::default(),
            deleting: RefCell::default(),
            closing: RefCell::default(),
            started: Cell::new(false),
        }
    }

    pub fn shared(&self) -> &Rc<PartitionShared> {
        &self.shared
    }

    /// The topic, if this shard leads any of its partitions.
    pub fn topic(&self, name: &str) -> Option<Rc<LocalTopic>> {
        self.topics.borrow().by_name.get(name).cloned()
    }

    pub fn topic_by_id(&self, id: TopicId) -> Option<Rc<LocalTopic>> {
        self.topics.borrow().by_id.get(&id).cloned()
    }

    /// All partitions whose log is open here, in no order.
    pub fn all(&self) -> Vec<Rc<Partition>> {
        self.topics.borrow().by_id.values().flat_map(|topic| topic.open().cloned()).collect()
    }

    /// Log directories have changed in what they are fit for: their partitions and journals are told.
    pub fn heed_disks(&self) {
        self.shared.heed_disks();
        let all = self.all();
        all.iter().for_each(|partition| partition.heed_disk());
        let lost = |partition: &Rc<Partition>| self.shared.disks.health(&partition.home().log_dir) == Health::Offline;
        let lost: HashSet<_> = all.iter().filter(|p| lost(p)).map(|partition| partition.id).collect();
        self.shared.disks.set_lost(self.me, lost);
    }

    /// The second half: opens what this shard leads by the image. What has no directory yet is open when it returns; the
    /// maintenance thread opens the rest.
    pub fn open_led(self: &Rc<Self>, image: &ClusterImage, config: &BrokerConfig, settings_changed: bool) {
        let mut unopened = Vec::new();
        for topic in image.topics.values() {
            let known = self.topic_by_id(topic.id);
            let unchanged = known.as_ref().is_some_and(|local| Arc::ptr_eq(&local.topic, topic));
            let mine = topic.partitions.iter().any(|partition| partition.leader == Some(self.me));
            if (mine || known.is_some()) && (settings_changed || !unchanged) {
                self.update_topic(topic, known.as_deref(), config, &mut unopened);
            }
        }
        self.started.set(true);
        if self.shared.disks.all().any(|(_, health)| health == Health::Offline) {
            self.heed_disks();
        }
        if unopened.is_empty() {
            return;
        }
        let this = Rc::clone(self);
        let opener = tokio::task::spawn_local(async move {
            let (maintenance, disks) = (this.shared.maintenance.clone(), Arc::clone(&this.shared.disks));
            let mut outcomes = pin!(opening::open_all(&maintenance, &disks, unopened));
            while let Some(batch) = outcomes.next().await {
                batch.into_iter().for_each(|outcome| this.take_opened(outcome));
                if this.shared.disks.all().any(|(_, health)| health == Health::Offline) {
                    this.heed_disks();
                }
                this.opened.notify_waiters();
            }
            let (logs, bytes) = this.recovered.take();
            if logs > 0 {
                info!("broker {}: {logs} logs recovered, {bytes} bytes read", this.me);
            }
        });
        let mut openers = self.opener.borrow_mut();
        openers.retain(|opener| !opener.is_finished());
        openers.push(opener.abort_handle());
    }

    fn update_topic(
        &self,
        topic: &Arc<Topic>,
        before: Option<&LocalTopic>,
        config: &BrokerConfig,
        unopened: &mut Vec<Unopened>,
    ) {
        let resolved = TopicConfig::resolve(config, &topic.settings).unwrap_or_else(|e| {
            error!("settings of topic {}: {e}; it runs with the broker's defaults", topic.name);
            config.topic_defaults.clone()
        });
        let resolved = Rc::new(resolved);
        let partitions = topic.partitions.iter().enumerate().map(|(i, state)| {
            let index = partition_index(i);
            let known = before.and_then(|local| local.held(index)).cloned();
            match (&known, state.leader == Some(self.me)) {
                (Some(known), true) => known.update(state.leader_epoch, Rc::clone(&resolved)),
                (Some(known), false) => known.resign(),
                (None, true) if self.is_opening(topic.id, index) => {}
                (None, true) => match self.begin_opening(topic, index, &resolved) {
                    Begun::Opening(begun) => unopened.push(*begun),
                    Begun::Made(made) => {
                        let (config, place) = (Rc::clone(&resolved), (index, state));
                        return OnceCell::from(self.make_partition(topic, place, config, *made));
                    }
                },
                (None, false) => {}
            }
            known.map_or_else(OnceCell::new, OnceCell::from)
        });
        let partitions = partitions.collect();
        let local = Rc::new(LocalTopic { topic: Arc::clone(topic), config: resolved, partitions });
        let mut topics = self.topics.borrow_mut();
        topics.by_name.insert(Arc::clone(&topic.name), Rc::clone(&local));
        topics.by_id.insert(topic.id, local);
    }

    fn make_partition(
        &self,
        topic: &Topic,
        (index, state): (PartitionIndex, &image::Partition),
        config: Rc<TopicConfig>,
        (core, home): (LogCore, Home),
    ) -> Rc<Partition> {
        let id = TopicPartition { topic: topic.id, partition: index };
        let epoch = LeaderEpoch(state.leader_epoch.0);
        if let Some(newest) = core.epochs().latest().filter(|newest| *newest > epoch) {
            warn!(
                "{}-{index}: the store says leader epoch {epoch}, but the log has records of {newest}: the store must be \
                 older than the log; new records bear {newest}",
                topic.name
            );
        }
        Partition::new(id, Arc::clone(&topic.name), epoch, config, (core, home), Rc::clone(&self.shared))
    }

    /// Stops all partitions cleanly; gives the log directories in which not everything is whole on disk.
    pub async fn close(&self) -> BTreeSet<PathBuf> {
        // What is still being opened is given up: the next start begins with it again.
        self.opener.take().iter().for_each(AbortHandle::abort);
        let deleting: Vec<_> = self.deleting.borrow().values().cloned().collect();
        let closings = self.all().into_iter().chain(deleting).map(|partition| async move {
            let log_dir = partition.home().log_dir.clone();
            let closed = self.shared.unless_lost(&log_dir, partition.close()).await;
            if let Some(Err(e)) = &closed {
                warn!("{}-{}: closing: {e}", partition.topic, partition.index());
            }
            let is_whole = closed.is_some_and(|closed| closed.is_ok()) && partition.core().failure().is_none();
            (!is_whole).then_some(log_dir)
        });
        let unclean = stream::iter(closings).buffer_unordered(CLOSING_MAX).filter_map(std::future::ready);
        let mut unclean: BTreeSet<PathBuf> = unclean.collect().await;
        unclean.extend(self.openings.borrow().values().map(|opening| opening.home.log_dir.clone()));
        // One that was not taken into use may hold what no other file does.
        let unused = |path: &PathBuf| !self.shared.knows_journal(path);
        unclean.extend(self.log_dirs.borrow().iter().map(|dir| dir.found.path.clone()).filter(unused));
        unclean.extend(self.shared.close_journals().await);
        unclean
    }

    pub fn topics(&self) -> Ref<'_, HashMap<TopicId, Rc<LocalTopic>, foldhash::fast::RandomState>> {
        Ref::map(self.topics.borrow(), |topics| &topics.by_id)
    }
}

fn partition_index(position: usize) -> PartitionIndex {
    PartitionIndex(i32::try_from(position).expect("partition counts fit i32"))
}

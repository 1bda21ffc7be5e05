//! The partitions that a shard leads, found by topic name or id, and kept in step with the cluster image.

use super::checkpoints::{Checkpoints, Outdated};
use super::journal::Rings;
use super::leader::Partition;
use super::materialise::Home;
use super::opening::{self, Outcome, Unopened};
use super::scrub;
use super::shared::PartitionShared;
use crate::base::clock::now_ms;
use crate::base::config::{BrokerConfig, TopicConfig};
use crate::base::disks::Health;
use crate::base::ids::Offset;
use crate::base::ids::{BrokerId, LeaderEpoch, PartitionIndex, TopicId, TopicPartition};
use crate::base::limits::{START_WAIT_CLEAN_MS_MAX, START_WAIT_UNCLEAN_MS_MAX};
use crate::cluster::image::{self, ClusterImage, Topic};
use crate::log::checkpoint::PartitionOffsets;
use crate::log::core::LogCore;
use crate::log::open::{OpenError, OpenParams, Opened};
use futures_util::stream::{self, StreamExt};
use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tracing::{error, info, warn};

/// Partitions that are closed or deleted side by side: each waits for the disk most of the time.
const CLOSING_MAX: usize = 16;
/// Deletions that take longer are told of.
const DELETION_PATIENCE: Duration = Duration::from_secs(10);

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
}

/// The partitions that this shard leads.
pub struct PartitionTable {
    me: BrokerId,
    shared: Rc<PartitionShared>,
    topics: RefCell<Topics>,
    log_dirs: RefCell<Vec<LogDirState>>,
    /// Logs that an unclean stop left to be checked, and the bytes read for it, since that was last told.
    recovered: Cell<(usize, u64)>,
    /// What the journals hold for logs that are not open yet; None once they are in use.
    rings: RefCell<Option<Rings>>,
    /// Logs that the maintenance thread is opening.
    openings: RefCell<HashMap<TopicPartition, Opening, foldhash::fast::RandomState>>,
    /// There are fewer of them.
    opened: Notify,
    opener: RefCell<Vec<AbortHandle>>,
    /// Of topics that are gone: their names on disk are not free yet.
    deleting: RefCell<HashMap<TopicPartition, Rc<Partition>>>,
    /// The first image has been applied.
    started: Cell<bool>,
}

/// What became of a partition that this shard is to lead.
enum Begun {
    Opening(Box<Unopened>),
    /// Nothing is on disk, neither in a directory nor in a journal; or the disk is offline.
    Made(Box<(LogCore, Home)>),
}

/// A log that is being opened.
struct Opening {
    home: Home,
    /// What the checkpoint files say of it: that stays true until it is open.
    key: (String, PartitionIndex),
    recovery_point: Offset,
    log_start: Option<Offset>,
    cleaned: Option<Offset>,
    clean: bool,
    /// A journal has something for it.
    redo: bool,
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
            rings: RefCell::new(Some(rings)),
            openings: RefCell::default(),
            opened: Notify::new(),
            opener: RefCell::default(),
            deleting: RefCell::default(),
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

    /// The first half of taking over a new image: closes what is gone; when it returns, the names of deleted partitions are
    /// free on disk. Gives the partitions, gone or about to be opened, of which the checkpoint files may tell what was true of
    /// an earlier life: they know topics by name only, so they must be written before a new life takes records. A disk that
    /// does not answer is waited for until it has failed, and told of.
    #[must_use]
    pub async fn close_deleted(&self, image: &ClusterImage) -> Outdated {
        let mut outdated = self.delete_gone(image, DELETION_PATIENCE).await;
        for topic in image.topics.values() {
            let known = self.topic_by_id(topic.id);
            for (i, _) in topic.partitions.iter().enumerate().filter(|(_, state)| state.leader == Some(self.me)) {
                let index = partition_index(i);
                if known.as_ref().is_some_and(|local| local.held(index).is_some()) {
                    continue;
                }
                let key = (topic.name.to_string(), index);
                if self.is_spoken_of_in_vain(topic.id, &key) {
                    outdated.insert(key);
                }
            }
        }
        outdated
    }

    /// Deletes partitions whose topics are gone; gives them. What takes longer than `patience` is told of, and waited for.
    pub(super) async fn delete_gone(&self, image: &ClusterImage, patience: Duration) -> Outdated {
        let mut deleted = pin!(async {
            // What is just being opened can be closed afterwards.
            self.while_opening(|id, _| image.topic_by_id(id.topic).is_none()).await;
            let gone = self.remove_deleted(image);
            self.deleting.borrow_mut().extend(gone.iter().map(|partition| (partition.id, Rc::clone(partition))));
            let deletions = gone.into_iter().map(|partition| async move {
                self.forget_home(&partition);
                let log_dir = partition.home().log_dir.clone();
                if self.shared.unless_offline(&log_dir, partition.delete()).await.is_some() {
                    self.deleting.borrow_mut().remove(&partition.id);
                }
                (partition.topic.to_string(), partition.index())
            });
            stream::iter(deletions).buffer_unordered(CLOSING_MAX).collect().await
        });
        tokio::select! {
            biased;
            deleted = &mut deleted => return deleted,
            () = tokio::time::sleep(patience) => {}
        }
        let dirs: BTreeSet<_> = self.deleting.borrow().values().map(|gone| gone.home().log_dir.clone()).collect();
        warn!("deleting topics takes longer than {} s; what changes topics waits for {dirs:?}", patience.as_secs());
        self.shared.metrics.deletions_late.add(1);
        deleted.await
    }

    /// Whether a checkpoint file speaks of a partition of that name that is not this one.
    fn is_spoken_of_in_vain(&self, id: TopicId, key: &(String, PartitionIndex)) -> bool {
        self.log_dirs.borrow().iter().any(|LogDirState { found, .. }| {
            let holds = found.partitions.get(key).is_some_and(|holder| *holder == Some(id));
            let files = [&found.recovery_points, &found.log_starts, &found.cleaned];
            !holds && files.into_iter().any(|file| file.contains_key(key))
        })
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
            let mut outcomes = pin!(opening::open_all(this.shared.maintenance.clone(), unopened));
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

    /// Whether this shard is to lead a partition whose log is still being opened.
    pub fn is_opening(&self, topic: TopicId, partition: PartitionIndex) -> bool {
        self.openings.borrow().contains_key(&TopicPartition { topic, partition })
    }

    /// Ends when no such log is being opened.
    async fn while_opening(&self, which: impl Fn(&TopicPartition, &Opening) -> bool) {
        loop {
            // Made before it is looked: a log that is opened in between is not missed.
            let opened = self.opened.notified();
            if !self.openings.borrow().iter().any(|(id, opening)| which(id, opening)) {
                return;
            }
            opened.await;
        }
    }

    /// Waits at a start until all logs are open, but not long: `limits` argues how long.
    pub async fn opened_or_late(&self) {
        let all_clean = self.openings.borrow().values().all(|opening| opening.clean);
        let most = if all_clean { START_WAIT_CLEAN_MS_MAX } else { START_WAIT_UNCLEAN_MS_MAX };
        let all = self.while_opening(|_, _| true);
        // Late is no error: what is open is served, and clients ask again for the rest.
        let _ = tokio::time::timeout(Duration::from_millis(most), all).await;
    }

    fn remove_deleted(&self, image: &ClusterImage) -> Vec<Rc<Partition>> {
        let mut topics = self.topics.borrow_mut();
        let deleted: Vec<TopicId> =
            topics.by_id.keys().filter(|id| image.topic_by_id(**id).is_none()).copied().collect();
        let mut gone = Vec::new();
        for id in deleted {
            let Some(local) = topics.by_id.remove(&id) else { continue };
            if topics.by_name.get(&local.topic.name).is_some_and(|named| named.topic.id == id) {
                topics.by_name.remove(&local.topic.name);
            }
            gone.extend(local.open().cloned());
        }
        gone
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

    fn begin_opening(&self, topic: &Arc<Topic>, index: PartitionIndex, config: &TopicConfig) -> Begun {
        let id = TopicPartition { topic: topic.id, partition: index };
        let (home, params) = self.find_home(topic, index);
        if let Some(failure) = self.shared.disks.failure(&home.log_dir) {
            return Begun::Made(Box::new((offline(topic, index, &home, params.log_start, &failure), home)));
        }
        let redo = self.rings.borrow_mut().as_mut().map_or_else(Vec::new, |rings| rings.redo(&home.log_dir, id));
        if !home.exists && redo.is_empty() {
            return Begun::Made(Box::new((LogCore::empty(Rc::clone(&home.dir), Offset(0)), home)));
        }
        let (log_dir, exists) = (home.log_dir.clone(), home.exists);
        let opening = Opening {
            home,
            key: (topic.name.to_string(), index),
            recovery_point: params.recovery_point,
            log_start: params.log_start,
            cleaned: params.cleaned,
            clean: params.clean && redo.is_empty(),
            redo: !redo.is_empty(),
        };
        self.openings.borrow_mut().insert(id, opening);
        let (topic, config) = (Arc::clone(&topic.name), config.clone());
        Begun::Opening(Box::new(Unopened { id, topic, log_dir, exists, params, config, redo }))
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

    /// The maintenance thread has opened a log, or found that it cannot be. What fails by the disk takes the log directory offline;
    /// anything else the partition.
    fn take_opened(&self, Outcome { id, opened, corrupt, redone, full }: Outcome) {
        let Some(opening) = self.openings.borrow_mut().remove(&id) else { return };
        let local = self.topic_by_id(id.topic).expect("a topic is not removed while its logs are being opened");
        let (topic, index) = (&local.topic, id.partition);
        let Opening { mut home, log_start, redo, .. } = opening;
        if redo && redone {
            home.exists = true;
            if let Some(rings) = &mut *self.rings.borrow_mut() {
                rings.done(&home.log_dir, id);
            }
        }
        for error in full.iter().chain(opened.as_ref().err()) {
            if let OpenError::Io { path, source } = error {
                self.shared.disks.report(&home.log_dir, &format!("opening {}", path.display()), source);
            }
        }
        let mut core = match opened {
            Ok(opened) => self.take_log(&mut home, opened, opening.clean),
            Err(e) => offline(topic, index, &home, log_start, &e.to_string()),
        };
        if let Some(ranges) = corrupt {
            scrub::take(&mut core, ranges);
        }
        let slot = usize::try_from(index.0).ok().and_then(|index| local.partitions.get(index));
        let (Some(slot), Some(state)) = (slot, topic.partition(index)) else { return };
        let partition = self.make_partition(topic, (index, state), Rc::clone(&local.config), (core, home));
        partition.cleaning.set_cleaned(opening.cleaned);
        if state.leader != Some(self.me) {
            partition.resign();
        }
        assert!(slot.set(partition).is_ok(), "a log is opened once");
    }

    fn take_log(&self, home: &mut Home, opened: Opened, was_clean: bool) -> LogCore {
        for cut in &opened.cuts {
            warn!("{cut}");
        }
        if !was_clean {
            let (logs, bytes) = self.recovered.get();
            self.recovered.set((logs + 1, bytes + opened.scanned_bytes));
        }
        let core = LogCore::recovered(Rc::clone(&home.dir), opened.log);
        home.clean_end = opened.is_clean.then(|| core.written_end());
        core
    }

    /// Whether a journal still holds what is to be brought to its segments.
    pub fn is_redoing(&self) -> bool {
        self.openings.borrow().values().any(|opening| opening.redo)
    }

    /// After the first image: takes the journals into use, once all that they held is in its segments. Until then what must
    /// be durable is synced by itself.
    pub async fn begin_journals(&self, exists: impl Fn(TopicId) -> bool) {
        self.while_opening(|_, opening| opening.redo).await;
        let Some(rings) = self.rings.take() else { return };
        let journals = rings.begin(exists, &self.shared).await;
        self.shared.set_journals(journals);
        self.heed_disks();
    }

    /// The directory that holds the partition, or the log directory with the fewest partitions for a new one. A partition that the
    /// node knew before it was started without one of its directories may lie there: it must not begin anew elsewhere (Kafka:
    /// LogManager.getOrCreateLog).
    fn find_home(&self, topic: &Topic, index: PartitionIndex) -> (Home, OpenParams) {
        let mut dirs = self.log_dirs.borrow_mut();
        let key = (topic.name.to_string(), index);
        let id = TopicPartition { topic: topic.id, partition: index };
        let holds = |dir: &LogDirState| dir.found.partitions.get(&key).is_some_and(|id| *id == Some(topic.id));
        let holder = dirs.iter().position(holds);
        let journaled = self.rings.borrow().as_ref().and_then(|rings| rings.holder(id).map(Path::to_owned));
        let journaled = journaled.and_then(|path| dirs.iter().position(|dir| dir.found.path == path));
        let disks = &self.shared.disks;
        let is_starting = !self.started.get();
        if let (None, None, true, true) = (holder, journaled, is_starting, disks.began_without_one()) {
            let offline = disks.all().find(|(_, health)| *health == Health::Offline).map(|(path, _)| path);
            let home = Home::new(offline.expect("the node began without one"), &topic.name, index, false);
            let dir = home.dir.to_path_buf();
            let params = OpenParams {
                dir,
                clean: false,
                recovery_point: Offset(0),
                log_start: None,
                cleaned: None,
                now_ms: now_ms(),
            };
            return (home, params);
        }
        let at = holder.or(journaled).unwrap_or_else(|| {
            let by_preference = |(_, dir): &(usize, &LogDirState)| {
                let health = disks.health(&dir.found.path);
                (health == Health::Offline, health == Health::Full, dir.count)
            };
            let best = dirs.iter().enumerate().min_by_key(by_preference).map(|(i, _)| i);
            best.expect("a broker has at least one log directory")
        });
        let dir = &mut dirs[at];
        dir.count += 1;
        let home = Home::new(&dir.found.path, &topic.name, index, holder.is_some());
        let params = OpenParams {
            dir: home.dir.to_path_buf(),
            clean: dir.found.clean,
            recovery_point: dir.found.recovery_points.get(&key).copied().unwrap_or(Offset(0)),
            log_start: holder.and_then(|_| dir.found.log_starts.get(&key).copied()),
            cleaned: holder.and_then(|_| dir.found.cleaned.get(&key).copied()),
            now_ms: now_ms(),
        };
        (home, params)
    }

    fn forget_home(&self, partition: &Partition) {
        let key = (partition.topic.to_string(), partition.index());
        for dir in self.log_dirs.borrow_mut().iter_mut() {
            if dir.found.path == partition.home().log_dir {
                dir.count = dir.count.saturating_sub(1);
                dir.found.partitions.remove(&key);
                dir.found.recovery_points.remove(&key);
                dir.found.log_starts.remove(&key);
                dir.found.cleaned.remove(&key);
            }
        }
    }

    /// Recovery points and log starts of this shard's partitions, by log directory.
    pub fn checkpoints(&self) -> BTreeMap<PathBuf, Checkpoints> {
        let mut all: BTreeMap<PathBuf, Checkpoints> = BTreeMap::new();
        for partition in self.all() {
            let home = partition.home();
            if !home.exists {
                continue;
            }
            let checkpoints = all.entry(home.log_dir.clone()).or_default();
            let key = (partition.topic.to_string(), partition.index());
            let ends = partition.ends();
            checkpoints.recovery_points.insert(key.clone(), partition.core().recovery_point());
            checkpoints.log_starts.insert(key.clone(), ends.log_start);
            if let Some(cleaned) = partition.cleaning.cleaned() {
                checkpoints.cleaned.insert(key, cleaned);
            }
        }
        for opening in self.openings.borrow().values().filter(|opening| opening.home.exists) {
            let checkpoints = all.entry(opening.home.log_dir.clone()).or_default();
            checkpoints.recovery_points.insert(opening.key.clone(), opening.recovery_point);
            checkpoints.log_starts.extend(opening.log_start.map(|start| (opening.key.clone(), start)));
            checkpoints.cleaned.extend(opening.cleaned.map(|cleaned| (opening.key.clone(), cleaned)));
        }
        all
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
        if !self.shared.has_journals() {
            // One that was not taken into use may hold what no other file does.
            unclean.extend(self.log_dirs.borrow().iter().map(|dir| dir.found.path.clone()));
        }
        unclean.extend(self.shared.close_journals().await);
        unclean
    }

    pub fn topics(&self) -> Ref<'_, HashMap<TopicId, Rc<LocalTopic>, foldhash::fast::RandomState>> {
        Ref::map(self.topics.borrow(), |topics| &topics.by_id)
    }
}

/// The log of a partition that cannot be opened. The checkpoints go on to say where it began.
fn offline(topic: &Topic, index: PartitionIndex, home: &Home, log_start: Option<Offset>, reason: &str) -> LogCore {
    error!("{}-{index} is offline: {reason}", topic.name);
    let mut core = LogCore::empty(Rc::clone(&home.dir), log_start.unwrap_or(Offset(0)));
    core.fail(Rc::from(reason));
    core
}

fn partition_index(position: usize) -> PartitionIndex {
    PartitionIndex(i32::try_from(position).expect("partition counts fit i32"))
}

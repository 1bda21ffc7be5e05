//! The partitions that a shard leads, found by topic name or id, and kept in step with the cluster image.

use super::checkpoints::{Checkpoints, Outdated};
use super::journal::Rings;
use super::leader::Partition;
use super::materialise::{self, Home};
use super::scrub;
use super::shared::PartitionShared;
use crate::base::clock::now_ms;
use crate::base::config::{BrokerConfig, TopicConfig};
use crate::base::disks::{Harm, Health};
use crate::base::ids::Offset;
use crate::base::ids::{BrokerId, LeaderEpoch, PartitionIndex, TopicId, TopicPartition};
use crate::cluster::image::{self, ClusterImage, Topic};
use crate::log::checkpoint::PartitionOffsets;
use crate::log::core::LogCore;
use crate::log::open::{self, OpenParams};
use crate::log::reserve;
use futures_util::stream::{self, StreamExt};
use std::cell::{Cell, Ref, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use tracing::{error, info, warn};

/// Partitions that are closed side by side: each waits for the disk most of the time.
const CLOSING_MAX: usize = 16;

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
}

#[derive(Default)]
struct Topics {
    by_name: HashMap<Arc<str>, Rc<LocalTopic>, foldhash::fast::RandomState>,
    by_id: HashMap<TopicId, Rc<LocalTopic>, foldhash::fast::RandomState>,
}

/// A topic of which this shard leads something.
pub struct LocalTopic {
    pub topic: Arc<Topic>,
    /// By partition index; None: its log was never open here.
    partitions: Vec<Option<Rc<Partition>>>,
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
        self.partitions.iter().flatten().filter(|partition| partition.leads())
    }

    /// Led or not, its log is open here.
    fn held(&self, index: PartitionIndex) -> Option<&Rc<Partition>> {
        self.partitions.get(usize::try_from(index.0).ok()?)?.as_ref()
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
        self.topics.borrow().by_id.values().flat_map(|topic| topic.partitions.iter().flatten().cloned()).collect()
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
    /// an earlier life: they know topics by name only, so they must be written before a new life takes records.
    #[must_use]
    pub async fn close_deleted(&self, image: &ClusterImage) -> Outdated {
        let mut outdated = Outdated::new();
        for partition in self.remove_deleted(image) {
            self.forget_home(&partition);
            partition.delete().await;
            outdated.insert((partition.topic.to_string(), partition.index()));
        }
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

    /// Whether a checkpoint file speaks of a partition of that name that is not this one.
    fn is_spoken_of_in_vain(&self, id: TopicId, key: &(String, PartitionIndex)) -> bool {
        self.log_dirs.borrow().iter().any(|LogDirState { found, .. }| {
            let holds = found.partitions.get(key).is_some_and(|holder| *holder == Some(id));
            let files = [&found.recovery_points, &found.log_starts, &found.cleaned];
            !holds && files.into_iter().any(|file| file.contains_key(key))
        })
    }

    /// The second half: opens what this shard leads by the image.
    pub fn open_led(&self, image: &ClusterImage, config: &BrokerConfig, settings_changed: bool) {
        for topic in image.topics.values() {
            let known = self.topic_by_id(topic.id);
            let unchanged = known.as_ref().is_some_and(|local| Arc::ptr_eq(&local.topic, topic));
            let mine = topic.partitions.iter().any(|partition| partition.leader == Some(self.me));
            if (mine || known.is_some()) && (settings_changed || !unchanged) {
                self.update_topic(topic, known.as_deref(), config);
            }
        }
        if self.shared.disks.all().any(|(_, health)| health == Health::Offline) {
            self.heed_disks();
        }
        let (logs, bytes) = self.recovered.take();
        if logs > 0 {
            info!("broker {}: {logs} logs recovered, {bytes} bytes read", self.me);
        }
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
            gone.extend(local.partitions.iter().flatten().cloned());
        }
        gone
    }

    fn update_topic(&self, topic: &Arc<Topic>, before: Option<&LocalTopic>, config: &BrokerConfig) {
        let resolved = TopicConfig::resolve(config, &topic.settings).unwrap_or_else(|e| {
            error!("settings of topic {}: {e}; it runs with the broker's defaults", topic.name);
            config.topic_defaults.clone()
        });
        let resolved = Rc::new(resolved);
        let partitions = topic.partitions.iter().enumerate().map(|(i, state)| {
            let index = partition_index(i);
            match (before.and_then(|local| local.held(index)), state.leader == Some(self.me)) {
                (Some(known), true) => known.update(state.leader_epoch, Rc::clone(&resolved)),
                (Some(known), false) => known.resign(),
                (None, true) => return Some(self.open(topic, (index, state), &resolved)),
                (None, false) => return None,
            }
            before.and_then(|local| local.held(index)).cloned()
        });
        let local = Rc::new(LocalTopic { topic: Arc::clone(topic), partitions: partitions.collect() });
        let mut topics = self.topics.borrow_mut();
        topics.by_name.insert(Arc::clone(&topic.name), Rc::clone(&local));
        topics.by_id.insert(topic.id, local);
    }

    fn open(
        &self,
        topic: &Arc<Topic>,
        (index, state): (PartitionIndex, &image::Partition),
        config: &Rc<TopicConfig>,
    ) -> Rc<Partition> {
        let id = TopicPartition { topic: topic.id, partition: index };
        let (mut home, mut params) = self.find_home(topic, index);
        let opened = match self.shared.disks.failure(&home.log_dir) {
            Some(failure) => Err(failure.to_string()),
            None => self.redo_and_open((topic, id), &mut home, &mut params, config),
        };
        let core = opened.unwrap_or_else(|reason| {
            error!("{}-{index} is offline: {reason}", topic.name);
            // The checkpoints go on to say where it began.
            let mut core = LogCore::empty(Rc::clone(&home.dir), params.log_start.unwrap_or(Offset(0)));
            core.fail(Rc::from(reason));
            core
        });
        let epoch = LeaderEpoch(state.leader_epoch.0);
        if let Some(newest) = core.epochs().latest().filter(|newest| *newest > epoch) {
            warn!(
                "{}-{index}: the store says leader epoch {epoch}, but the log has records of {newest}: the store must be \
                 older than the log; new records bear {newest}",
                topic.name
            );
        }
        let (config, shared) = (Rc::clone(config), Rc::clone(&self.shared));
        let partition = Partition::new(id, Arc::clone(&topic.name), epoch, config, (core, home), shared);
        partition.cleaning.set_cleaned(params.cleaned);
        partition
    }

    /// What fails by the disk takes the log directory offline; anything else the partition.
    fn redo_and_open(
        &self,
        (topic, id): (&Topic, TopicPartition),
        home: &mut Home,
        params: &mut OpenParams,
        config: &TopicConfig,
    ) -> Result<LogCore, String> {
        let mut has_reserve = true;
        loop {
            let redone = self.redo(home, params, (&topic.name, id));
            let e = match redone.and_then(|()| self.open_log(home, params, config)) {
                Ok(core) => return Ok(core),
                Err(e) => e,
            };
            if let open::OpenError::Io { path, source } = &e {
                let harm = self.shared.disks.report(&home.log_dir, &format!("opening {}", path.display()), source);
                // It is kept for this.
                if harm == Harm::Full && std::mem::take(&mut has_reserve) && reserve::release(&home.log_dir).is_ok() {
                    continue;
                }
            }
            return Err(e.to_string());
        }
    }

    /// Brings a log up to date from the journal, if that has anything for it.
    fn redo(
        &self,
        home: &mut Home,
        params: &mut OpenParams,
        (name, id): (&str, TopicPartition),
    ) -> Result<(), open::OpenError> {
        let mut rings = self.rings.borrow_mut();
        let Some(rings) = rings.as_mut() else { return Ok(()) };
        let writes = rings.redo(&home.log_dir, id);
        if writes.is_empty() {
            return Ok(());
        }
        materialise::redo_journaled(home, (name, id), params.log_start, writes)
            .map_err(|source| open::OpenError::Io { path: home.dir.to_path_buf(), source })?;
        (home.exists, params.clean) = (true, false);
        rings.done(&home.log_dir, id);
        Ok(())
    }

    /// After the first image: takes the journals into use, since all that they held is in its segments now.
    pub async fn begin_journals(&self, image: &ClusterImage) {
        let Some(rings) = self.rings.take() else { return };
        let journals = rings.begin(|id| image.topic_by_id(id).is_some(), &self.shared).await;
        self.shared.set_journals(journals);
        self.heed_disks();
    }

    fn open_log(&self, home: &mut Home, params: &OpenParams, config: &TopicConfig) -> Result<LogCore, open::OpenError> {
        if !home.exists {
            return Ok(LogCore::empty(Rc::clone(&home.dir), Offset(0)));
        }
        let mut opened = open::open(params, config)?;
        scrub::load(&mut opened.core, &params.dir);
        for cut in &opened.cuts {
            match &cut.problem {
                Some(problem) => warn!(
                    "{}: cut at byte {} ({} bytes, from offset {} on): {problem}",
                    cut.file.display(),
                    cut.position,
                    cut.bytes,
                    cut.next_offset
                ),
                None => warn!("{}: removed, {} bytes after a cut", cut.file.display(), cut.bytes),
            }
        }
        home.clean_end = opened.is_clean.then(|| opened.core.written_end());
        if !params.clean {
            let (logs, bytes) = self.recovered.get();
            self.recovered.set((logs + 1, bytes + opened.scanned_bytes));
        }
        Ok(opened.core)
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
        let is_starting = self.rings.borrow().is_some();
        if let (None, None, true, true) = (holder, journaled, is_starting, disks.began_without_one()) {
            let offline = disks.all().find(|(_, health)| *health == Health::Offline).map(|(path, _)| path);
            let home = Home::new(offline.expect("the node began without one"), &topic.name, index, false);
            let dir = Rc::clone(&home.dir);
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
            dir: Rc::clone(&home.dir),
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
        all
    }

    /// Stops all partitions cleanly; gives the log directories in which not everything is whole on disk.
    pub async fn close(&self) -> BTreeSet<PathBuf> {
        let closings = self.all().into_iter().map(|partition| async move {
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

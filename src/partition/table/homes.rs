//! Where partitions live, and what the checkpoint files get to know of them.

use super::{LogDirState, PartitionTable};
use crate::base::clock::now_ms;
use crate::base::disks::Health;
use crate::base::ids::{Offset, PartitionIndex, TopicPartition};
use crate::cluster::image::Topic;
use crate::log::open::OpenParams;
use crate::partition::checkpoints::Checkpoints;
use crate::partition::leader::Partition;
use crate::partition::materialise::Home;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl PartitionTable {
    /// The directory that holds the partition, or the log directory with the fewest partitions for a new one. A partition that the
    /// node knew before it was started may lie in a directory that is offline, or in its ring, which is why it is: it must not begin
    /// anew elsewhere (Kafka: LogManager.getOrCreateLog).
    pub(super) fn find_home(&self, topic: &Topic, index: PartitionIndex) -> (Home, OpenParams) {
        let mut dirs = self.log_dirs.borrow_mut();
        let key = (topic.name.to_string(), index);
        let id = TopicPartition { topic: topic.id, partition: index };
        let holds = |dir: &LogDirState| dir.found.partitions.get(&key).is_some_and(|id| *id == Some(topic.id));
        let is_unnamed = |dir: &LogDirState| dir.found.unnamed.contains_key(&key);
        let holder = dirs.iter().position(holds).or_else(|| dirs.iter().position(is_unnamed));
        let journaled = self.rings.borrow().holder(id).map(Path::to_owned);
        let journaled = journaled.and_then(|path| dirs.iter().position(|dir| dir.found.path == path));
        let disks = &self.shared.disks;
        let offline = || disks.all().find(|(_, health)| *health == Health::Offline).map(|(path, _)| path.to_owned());
        if let (None, None, false, Some(log_dir)) = (holder, journaled, self.started.get(), offline()) {
            let home = Home::new(&log_dir, &topic.name, index, false);
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

    /// Why the partition cannot be opened: its directory bears the topic's name, but whose it is cannot be read.
    pub(super) fn unnamed(&self, home: &Home, topic: &Topic, index: PartitionIndex) -> Option<Arc<str>> {
        let dirs = self.log_dirs.borrow();
        let found = &dirs.iter().find(|dir| dir.found.path == home.log_dir)?.found;
        let key = (topic.name.to_string(), index);
        let why = found.unnamed.get(&key).filter(|_| found.partitions.get(&key) != Some(&Some(topic.id)))?;
        Some(Arc::from(format!("{}: {why}; it is neither made anew nor set aside", home.dir.display())))
    }

    pub(super) fn forget_home(&self, partition: &Partition) {
        let key = (partition.topic.to_string(), partition.index());
        for dir in self.log_dirs.borrow_mut().iter_mut() {
            if dir.found.path == partition.home().log_dir {
                dir.count = dir.count.saturating_sub(1);
                dir.found.partitions.remove(&key);
                dir.found.unnamed.remove(&key);
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
}

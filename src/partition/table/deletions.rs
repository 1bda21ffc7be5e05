//! Partitions of topics that are gone: their directories get another name, so that theirs is free for a topic of that name, and the
//! checkpoint files forget them.
//!
//! Both are done in each log directory by itself, and an image waits for a disk that does not answer only a moment. Until both are done the
//! name is *taken* in that directory: what is made anew under it goes to another one, where nothing on disk speaks of the old life. Only where
//! there is no other does the image wait on. A crash meanwhile leaves what one between the store and the disk always may: a directory
//! that bears the id of a topic which the store does not know, and is set aside.

use super::{LogDirState, PartitionTable, partition_index};
use crate::base::disks::Health;
use crate::base::ids::{PartitionIndex, TopicId};
use crate::cluster::image::ClusterImage;
use crate::partition::checkpoints::Outdated;
use crate::partition::leader::Partition;
use futures_util::future::{LocalBoxFuture, join_all};
use futures_util::stream::{self, FuturesUnordered, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::{JoinHandle, spawn_local};
use tracing::warn;

/// Partitions that are closed or deleted side by side: each waits for the disk most of the time.
pub(super) const CLOSING_MAX: usize = 16;
/// Deletions that take longer are told of, and waited for only where a name is needed.
const DELETION_PATIENCE: Duration = Duration::from_secs(10);

/// Has the checkpoint files forget what they say of partitions.
pub type Forget = Rc<dyn Fn(Outdated) -> LocalBoxFuture<'static, ()>>;

impl PartitionTable {
    /// The first half of taking over a new image: closes and deletes what is gone, and has the checkpoint files forget it, and
    /// partitions about to be opened of which they may tell what was true of an earlier life: they know topics by name only. When it returns,
    /// what the image has can be opened.
    pub async fn close_deleted(self: &Rc<Self>, image: &ClusterImage, forget: &Forget) {
        self.close_within(DELETION_PATIENCE, image, forget).await;
    }

    pub(in crate::partition) async fn close_within(
        self: &Rc<Self>,
        patience: Duration,
        image: &ClusterImage,
        forget: &Forget,
    ) {
        let mut under_way = self.begin_deletions(image, forget);
        let (mut patience, mut is_late) = (pin!(tokio::time::sleep(patience)), false);
        loop {
            // Made before it is looked: a name that gets free in between is not missed.
            let freed = self.freed.notified();
            // What keeps it may be of an earlier image.
            if !self.lacks_a_name(image) && (is_late || under_way.is_empty()) {
                return;
            }
            tokio::select! {
                biased;
                Some(done) = under_way.next() => match done {
                    Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
                    _ => {}
                },
                () = freed => {}
                () = &mut patience, if !is_late => {
                    is_late = true;
                    self.tell_of_delay();
                }
            }
        }
    }

    /// A task for each log directory, and for each topic of which something is just being opened.
    fn begin_deletions(self: &Rc<Self>, image: &ClusterImage, forget: &Forget) -> FuturesUnordered<JoinHandle<()>> {
        let mut under_way = FuturesUnordered::new();
        let gone: Vec<TopicId> = {
            let (topics, closing) = (self.topics.borrow(), self.closing.borrow());
            let is_gone = |id: &&TopicId| image.topic_by_id(**id).is_none() && !closing.contains(id);
            topics.by_id.keys().filter(is_gone).copied().collect()
        };
        let is_opening = |topic: &TopicId| self.openings.borrow().keys().any(|id| id.topic == *topic);
        let (opening, closed): (Vec<_>, Vec<_>) = gone.into_iter().partition(is_opening);
        for topic in opening {
            self.closing.borrow_mut().insert(topic);
            self.taken.borrow_mut().extend(self.names_of(topic));
            let (this, forget) = (Rc::clone(self), Rc::clone(forget));
            under_way.push(spawn_local(async move {
                this.while_opening(|id, _| id.topic == topic).await;
                this.closing.borrow_mut().remove(&topic);
                join_all(this.delete_topics(&[topic], &forget)).await;
            }));
        }
        under_way.extend(self.delete_topics(&closed, forget).into_iter().map(spawn_local));
        for names in self.spoken_of_in_vain(image).into_values() {
            self.taken.borrow_mut().extend(names.iter().cloned());
            under_way.push(spawn_local(Rc::clone(self).forget_names(names, Rc::clone(forget))));
        }
        under_way
    }

    /// The names that a topic's partitions have on disk, or get there.
    fn names_of(&self, topic: TopicId) -> Outdated {
        let open = self.topic_by_id(topic).into_iter().flat_map(|local| local.open().map(name_of).collect::<Vec<_>>());
        let openings = self.openings.borrow();
        let opening = openings.iter().filter(|(id, _)| id.topic == topic);
        open.chain(opening.map(|(_, opening)| (opening.home.log_dir.clone(), opening.key.clone()))).collect()
    }

    /// Takes topics out of the table, and deletes their partitions: what is to be done in each log directory. The names are taken at once.
    fn delete_topics(self: &Rc<Self>, topics: &[TopicId], forget: &Forget) -> Vec<impl Future<Output = ()> + use<>> {
        let mut by_dir: BTreeMap<PathBuf, Vec<Rc<Partition>>> = BTreeMap::new();
        for partition in topics.iter().flat_map(|topic| self.remove_topic(*topic)) {
            self.taken.borrow_mut().insert(name_of(&partition));
            self.forget_home(&partition);
            self.deleting.borrow_mut().insert(partition.id, Rc::clone(&partition));
            let log_dir = partition.home().log_dir.clone();
            by_dir.entry(log_dir).or_default().push(partition);
        }
        let delete = |(log_dir, gone)| Rc::clone(self).delete_in(log_dir, gone, Rc::clone(forget));
        by_dir.into_iter().map(delete).collect()
    }

    fn remove_topic(&self, id: TopicId) -> Vec<Rc<Partition>> {
        let mut topics = self.topics.borrow_mut();
        let Some(local) = topics.by_id.remove(&id) else { return Vec::new() };
        if topics.by_name.get(&local.topic.name).is_some_and(|named| named.topic.id == id) {
            topics.by_name.remove(&local.topic.name);
        }
        local.open().cloned().collect()
    }

    async fn delete_in(self: Rc<Self>, log_dir: PathBuf, gone: Vec<Rc<Partition>>, forget: Forget) {
        let names = gone.iter().map(name_of).collect();
        let deletions = gone.into_iter().map(|partition| {
            let (this, log_dir) = (&self, &log_dir);
            async move {
                if this.shared.unless_offline(log_dir, partition.delete()).await.is_some() {
                    this.deleting.borrow_mut().remove(&partition.id);
                }
            }
        });
        stream::iter(deletions).buffer_unordered(CLOSING_MAX).collect::<()>().await;
        self.forget_names(names, forget).await;
    }

    /// Has the checkpoint files forget partitions; then their names are free.
    async fn forget_names(self: Rc<Self>, names: Outdated, forget: Forget) {
        forget(names.clone()).await;
        self.taken.borrow_mut().retain(|name| !names.contains(name));
        self.freed.notify_waiters();
    }

    /// Partitions that are about to be opened, and log directories whose checkpoint files speak of another one of that name.
    fn spoken_of_in_vain(&self, image: &ClusterImage) -> BTreeMap<PathBuf, Outdated> {
        let mut all: BTreeMap<PathBuf, Outdated> = BTreeMap::new();
        for topic in image.topics.values() {
            let known = self.topic_by_id(topic.id);
            for (i, _) in topic.partitions.iter().enumerate().filter(|(_, state)| state.leader == Some(self.me)) {
                let index = partition_index(i);
                if known.as_ref().is_some_and(|local| local.held(index).is_some()) {
                    continue;
                }
                let key = (topic.name.to_string(), index);
                let in_vain = |LogDirState { found, .. }: &&LogDirState| {
                    let holder = found.partitions.get(&key);
                    let holds = found.unnamed.contains_key(&key) || holder.is_some_and(|id| *id == Some(topic.id));
                    let files = [&found.recovery_points, &found.log_starts, &found.cleaned];
                    !holds && files.into_iter().any(|file| file.contains_key(&key))
                };
                for dir in self.log_dirs.borrow().iter().filter(in_vain) {
                    let path = dir.found.path.clone();
                    all.entry(path.clone()).or_default().insert((path, key.clone()));
                }
            }
        }
        all
    }

    /// Whether the name of a partition is taken in a log directory: another life of it is not gone from there yet.
    pub(in crate::partition) fn is_taken(&self, log_dir: &Path, key: &(String, PartitionIndex)) -> bool {
        let taken = self.taken.borrow();
        !taken.is_empty() && taken.contains(&(log_dir.to_owned(), key.clone()))
    }

    /// Whether some partition is to be opened whose name is taken in every log directory that can be used.
    fn lacks_a_name(&self, image: &ClusterImage) -> bool {
        let taken = self.taken.borrow();
        let keys: BTreeSet<_> = taken.iter().map(|(_, key)| key).collect();
        let dirs = self.log_dirs.borrow();
        let is_usable = |dir: &&LogDirState| self.shared.disks.health(&dir.found.path) != Health::Offline;
        keys.into_iter().any(|key| {
            let (name, index) = key;
            let Some(topic) = image.topic(name) else { return false };
            let is_mine = topic.partition(*index).is_some_and(|state| state.leader == Some(self.me));
            let is_held = self.topic_by_id(topic.id).is_some_and(|local| local.held(*index).is_some());
            let mut usable = dirs.iter().filter(is_usable);
            is_mine
                && !is_held
                && !self.is_opening(topic.id, *index)
                && usable.clone().next().is_some()
                && usable.all(|dir| taken.contains(&(dir.found.path.clone(), key.clone())))
        })
    }

    fn tell_of_delay(&self) {
        let taken = self.taken.borrow();
        let dirs: BTreeSet<_> = taken.iter().map(|(log_dir, _)| log_dir).collect();
        let most = DELETION_PATIENCE.as_secs();
        warn!(
            "deleting topics takes longer than {most} s in {dirs:?}: what is made anew under their names goes elsewhere"
        );
        self.shared.metrics.deletions_late.add(1);
    }
}

fn name_of(partition: &Rc<Partition>) -> (PathBuf, (String, PartitionIndex)) {
    (partition.home().log_dir.clone(), (partition.topic.to_string(), partition.index()))
}

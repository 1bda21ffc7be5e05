//! Partitions of topics that are gone: their directories get another name, so that theirs is free for a topic of that name, and the
//! checkpoint files forget them.
//!
//! Both are done in each log directory by itself, and nothing of an image is opened before both are done in all that are not offline: whoever
//! deletes goes by paths, and a new topic of the name may come to lie in the same place, on this shard or another one. A crash
//! meanwhile leaves what one between the store and the disk always may: a directory that bears the id of a topic which the store
//! does not know, and is set aside.

use super::{LogDirState, PartitionTable, partition_index};
use crate::base::ids::{PartitionIndex, TopicId};
use crate::cluster::image::ClusterImage;
use crate::partition::checkpoints::Outdated;
use crate::partition::leader::Partition;
use futures_util::future::{LocalBoxFuture, join_all};
use futures_util::stream::{self, FuturesUnordered, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::{JoinHandle, spawn_local};
use tracing::warn;

/// Partitions that are closed or deleted side by side: each waits for the disk most of the time.
pub(super) const CLOSING_MAX: usize = 16;
/// Deletions that take longer are told of.
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
            tokio::select! {
                biased;
                done = under_way.next() => match done {
                    None => return,
                    Some(Err(e)) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
                    Some(_) => {}
                },
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
            let (this, forget) = (Rc::clone(self), Rc::clone(forget));
            under_way.push(spawn_local(async move {
                this.while_opening(|id, _| id.topic == topic).await;
                this.closing.borrow_mut().remove(&topic);
                join_all(this.delete_topics(&[topic], &forget)).await;
            }));
        }
        under_way.extend(self.delete_topics(&closed, forget).into_iter().map(spawn_local));
        for names in self.spoken_of_in_vain(image).into_values() {
            under_way.push(spawn_local(forget(names)));
        }
        under_way
    }

    /// Takes topics out of the table, and deletes their partitions: what is to be done in each log directory.
    fn delete_topics(self: &Rc<Self>, topics: &[TopicId], forget: &Forget) -> Vec<impl Future<Output = ()> + use<>> {
        let mut by_dir: BTreeMap<PathBuf, Vec<Rc<Partition>>> = BTreeMap::new();
        for partition in topics.iter().flat_map(|topic| self.remove_topic(*topic)) {
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
        forget(names).await;
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

    fn tell_of_delay(&self) {
        let deleting: BTreeSet<_> =
            self.deleting.borrow().values().map(|partition| partition.home().log_dir.clone()).collect();
        let opening: BTreeSet<_> = {
            let (openings, closing) = (self.openings.borrow(), self.closing.borrow());
            let gone = openings.iter().filter(|(id, _)| closing.contains(&id.topic));
            gone.map(|(_, opening)| opening.home.log_dir.clone()).collect()
        };
        let most = DELETION_PATIENCE.as_secs();
        warn!(
            "deleting topics takes longer than {most} s, and changes of topics wait for it: \
             deletions under way in {deleting:?}, logs that are just being opened in {opening:?}"
        );
        self.shared.metrics.deletions_late.add(1);
    }
}

fn name_of(partition: &Rc<Partition>) -> (PathBuf, (String, PartitionIndex)) {
    (partition.home().log_dir.clone(), (partition.topic.to_string(), partition.index()))
}

//! Has every segment looked through within a period: one round after the other, for each log directory of a shard.
//!
//! Segments are read on the maintenance thread, one at a time in the whole node, no faster than
//! `log.scrub.max.bytes.per.second`. What is found goes to the partition (`partition::scrub`); how far a round has come is
//! kept in the directory (`maintenance::scrub_progress`).

use crate::api::context::ShardContext;
use crate::base::clock::now_ms;
use crate::base::config::BrokerConfig;
use crate::base::disks::Health;
use crate::base::ids::PartitionIndex;
use crate::log::checkpoint::write_atomically;
use crate::log::segment::Segment;
use crate::maintenance::Lane;
use crate::maintenance::scrub_progress::{At, Looked, Progress, Settings, Step, file_name};
use crate::partition::leader::Partition;
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

/// Settings are looked at so often.
const TICK: Duration = Duration::from_millis(250);
/// So much of a round is done again after a crash, at most.
const SAVE_EVERY: Duration = Duration::from_secs(15);

/// The scrub of a shard's partitions in one log directory.
struct Scrubber {
    context: Rc<ShardContext>,
    dir: PathBuf,
    progress: Progress,
    /// Partitions whose turn is to come; None: not listed yet.
    partitions: Option<VecDeque<Weak<Partition>>>,
    saved: Option<(Progress, Instant)>,
    /// What the counter knows of what is left.
    told_left: u64,
    /// It was told that the progress cannot be saved.
    save_failed: bool,
}

/// Starts scrubbing; ends when `stop` turns true, with its progress saved.
pub fn start(context: &Rc<ShardContext>, stop: &watch::Receiver<bool>) -> Vec<JoinHandle<()>> {
    let dirs: Vec<PathBuf> = context.partitions.shared().disks.all().map(|(dir, _)| dir.to_owned()).collect();
    let scrubber = |dir| Scrubber {
        context: Rc::clone(context),
        dir,
        progress: Progress::default(),
        partitions: None,
        saved: None,
        told_left: 0,
        save_failed: false,
    };
    dirs.into_iter().map(|dir| tokio::task::spawn_local(scrubber(dir).run(stop.clone()))).collect()
}

impl Scrubber {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let stopped = async move {
            // The sender goes only with the node.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        tokio::select! {
            () = self.work() => {}
            () = stopped => {}
        }
        let (context, dir) = (Rc::clone(&self.context), self.dir.clone());
        // A disk that does not answer must not keep the stop.
        let _ = context.partitions.shared().unless_lost(&dir, self.save()).await;
    }

    async fn work(&mut self) {
        // As retention waits: a start has other things to do.
        tokio::time::sleep(Duration::from_millis(self.context.config().log_initial_task_delay_ms)).await;
        self.load().await;
        loop {
            if self.is_offline() {
                tokio::time::sleep(TICK).await;
                continue;
            }
            let config = self.context.config();
            self.context.partitions.shared().maintenance.set_rate(Lane::Scrub, config.scrub_bytes_per_second);
            match self.progress.step(now_ms(), &settings_of(&config)) {
                Step::Wait(time) => tokio::time::sleep(time.min(TICK)).await,
                Step::Begin => self.begin(),
                Step::Look => self.look().await,
            }
            let is_due = self.saved.as_ref().is_none_or(|(_, at)| at.elapsed() >= SAVE_EVERY);
            if is_due || !self.progress.is_under_way() {
                self.save().await;
            }
        }
    }

    fn is_offline(&self) -> bool {
        self.context.partitions.shared().disks.health(&self.dir) == Health::Offline
    }

    fn begin(&mut self) {
        self.progress.begin(now_ms());
        self.partitions = None;
        self.saved = None;
    }

    /// The next segment, or the end of the round.
    async fn look(&mut self) {
        self.list();
        let Some((partition, segment)) = self.next() else { return self.end() };
        let at = At { topic: partition.topic.to_string(), partition: partition.index(), segment: segment.base };
        let bytes = u64::from(segment.size());
        let looked = tokio::select! {
            biased;
            looked = partition.look_through(&segment, Lane::Scrub) => looked,
            // A pause, or a new round, does not wait for the segment's end: it is looked at again.
            () = interrupted(&self.context, &self.progress) => return,
        };
        let looked = looked.unwrap_or_else(|e| {
            warn!("scrub of {}-{}, segment {}: {e}", at.topic, at.partition, at.segment);
            Looked::default()
        });
        let metrics = &self.context.metrics;
        metrics.scrub_segments.add(1);
        metrics.scrub_bytes.add(bytes);
        metrics.scrub_damaged.add(u64::from(looked.is_damaged));
        metrics.scrub_gaps.add(u64::from(looked.has_gap));
        self.progress.passed(at, bytes, looked);
        self.tell_left();
    }

    fn end(&mut self) {
        self.progress.end(now_ms());
        self.partitions = None;
        self.tell_left();
        self.context.metrics.scrub_rounds.add(1);
        let Progress { begun_ms, ended_ms, segments, bytes, damaged, gaps, .. } = self.progress;
        let seconds = (ended_ms - begun_ms).max(0) / 1000;
        let period = self.context.config().scrub_period;
        let dir = self.dir.display();
        info!(
            "scrub of {dir}: {segments} segments, {bytes} bytes looked through in {seconds} s, {damaged} damaged, {gaps} with \
             missing offsets"
        );
        if u64::try_from(seconds).unwrap_or(0) > period.as_secs() {
            warn!("scrub of {dir} took longer than log.scrub.period.hours: raise log.scrub.max.bytes.per.second");
        }
    }

    /// Lists the partitions from where the round is.
    fn list(&mut self) {
        if self.partitions.is_some() {
            return;
        }
        let mut here: Vec<Rc<Partition>> = self.context.partitions.all();
        here.retain(|partition| partition.home().exists && partition.home().log_dir == self.dir);
        here.sort_by(|one, other| key_of(one).cmp(&key_of(other)));
        if let Some(at) = &self.progress.at {
            here.retain(|partition| key_of(partition) >= (at.topic.as_str(), at.partition));
        }
        if self.progress.at.is_none() {
            self.progress.total = here.iter().map(|partition| partition.core().size()).sum();
        }
        self.partitions = Some(here.iter().map(Rc::downgrade).collect());
        self.tell_left();
    }

    fn next(&mut self) -> Option<(Rc<Partition>, Rc<Segment>)> {
        let partitions = self.partitions.as_mut()?;
        while let Some(partition) = partitions.front() {
            let found = partition.upgrade().and_then(|partition| {
                let at = self.progress.at.as_ref().filter(|at| key_of(&partition) == (at.topic.as_str(), at.partition));
                let segment = partition.next_to_scrub(at.map(|at| at.segment))?;
                Some((partition, segment))
            });
            if found.is_some() {
                return found;
            }
            partitions.pop_front();
        }
        None
    }

    fn tell_left(&mut self) {
        let left = self.progress.left();
        let counter = &self.context.metrics.scrub_left_bytes;
        counter.subtract(std::mem::replace(&mut self.told_left, left));
        counter.add(left);
    }

    fn path(&self) -> PathBuf {
        self.dir.join(file_name(self.context.shard.0))
    }

    async fn load(&mut self) {
        let path = self.path();
        let read = tokio::task::spawn_blocking(move || fs::read_to_string(path)).await;
        match read.map_err(io::Error::other).and_then(|read| read) {
            Ok(text) => match Progress::decode(&text) {
                Ok(progress) => {
                    self.saved = Some((progress.clone(), Instant::now()));
                    self.progress = progress;
                }
                Err(e) => warn!("{}: {e}: a new round of scrubbing begins", self.path().display()),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => warn!("{}: {e}: a new round of scrubbing begins", self.path().display()),
        }
    }

    async fn save(&mut self) {
        if self.is_offline()
            || self.progress.begun_ms == 0
            || self.saved.as_ref().is_some_and(|(saved, _)| *saved == self.progress)
        {
            return;
        }
        let (path, text) = (self.path(), self.progress.encode());
        self.saved = Some((self.progress.clone(), Instant::now()));
        let written = tokio::task::spawn_blocking(move || write_atomically(&path, text.as_bytes())).await;
        let written = written.map_err(io::Error::other).and_then(|done| done);
        let failed_before = std::mem::replace(&mut self.save_failed, written.is_err());
        if let Err(e) = written
            && !failed_before
        {
            warn!("{}: {e}: a restart begins the round anew", self.path().display());
        }
    }
}

/// Ends when the segment in hand is not to be read on.
async fn interrupted(context: &ShardContext, progress: &Progress) {
    while progress.step(now_ms(), &settings_of(&context.config())) == Step::Look {
        tokio::time::sleep(TICK).await;
    }
}

fn settings_of(config: &Arc<BrokerConfig>) -> Settings {
    Settings { enabled: config.scrub_enable, period: config.scrub_period, asked_ms: config.scrub_begin_ms }
}

fn key_of(partition: &Partition) -> (&str, PartitionIndex) {
    (&partition.topic, partition.index())
}

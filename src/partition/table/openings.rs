//! Logs that are being opened by the maintenance thread, and when the journals are taken into use.
//!
//! Until a ring's superblock tells of this start, the next one finds the same entries in it, and writes them to the same
//! positions again. So a log is served before that only if it holds all of what was redone: then redoing it changes nothing, whatever
//! has come behind it. One that was cut below would be given those offsets, and those bytes, anew: it *waits* for its ring.

use super::{Begun, PartitionTable};
use crate::base::config::TopicConfig;
use crate::base::ids::{Offset, PartitionIndex, TopicId, TopicPartition};
use crate::base::limits::{START_WAIT_CLEAN_MS_MAX, START_WAIT_UNCLEAN_MS_MAX};
use crate::cluster::image::Topic;
use crate::log::core::LogCore;
use crate::log::open::{OpenError, Opened};
use crate::partition::materialise::Home;
use crate::partition::opening::{Outcome, Unopened};
use crate::partition::scrub;
use futures_util::future::join_all;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, info, warn};

/// A redo that takes longer is told of.
const REDO_PATIENCE: Duration = Duration::from_secs(60);

/// A log that is being opened.
pub(super) struct Opening {
    pub(super) home: Home,
    /// What the checkpoint files say of it: that stays true until it is open.
    pub(super) key: (String, PartitionIndex),
    pub(super) recovery_point: Offset,
    pub(super) log_start: Option<Offset>,
    pub(super) cleaned: Option<Offset>,
    clean: bool,
    /// A journal has something for it that is not in its segments yet.
    redo: bool,
    /// It is open, but ends below what was redone.
    waits: Option<Box<Outcome>>,
}

impl PartitionTable {
    /// Whether this shard is to lead a partition whose log is still being opened.
    pub fn is_opening(&self, topic: TopicId, partition: PartitionIndex) -> bool {
        self.openings.borrow().contains_key(&TopicPartition { topic, partition })
    }

    /// Ends when no such log is being opened.
    pub(super) async fn while_opening(&self, which: impl Fn(&TopicPartition, &Opening) -> bool) {
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

    pub(super) fn begin_opening(&self, topic: &Arc<Topic>, index: PartitionIndex, config: &TopicConfig) -> Begun {
        let id = TopicPartition { topic: topic.id, partition: index };
        let (home, params) = self.find_home(topic, index);
        let unnamed = self.unnamed(&home, topic, index);
        let failure = self.shared.disks.failure(&home.log_dir);
        let mut redo = Vec::new();
        if failure.is_none() {
            redo = self.rings.borrow_mut().redo(&home.log_dir, id);
        }
        if let Some(failure) = failure.or_else(|| unnamed.clone().filter(|_| redo.is_empty())) {
            let said = (params.recovery_point, params.log_start);
            return Begun::Made(Box::new((offline(topic, index, &home, said, &failure), home)));
        }
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
            waits: None,
        };
        self.openings.borrow_mut().insert(id, opening);
        let (topic, config) = (Arc::clone(&topic.name), config.clone());
        Begun::Opening(Box::new(Unopened { id, topic, log_dir, exists, params, config, unnamed, redo, redone: None }))
    }

    /// The maintenance thread has opened a log, or found that it cannot be. What fails by the disk takes the log directory offline;
    /// anything else the partition.
    pub(super) fn take_opened(&self, outcome: Outcome) {
        let id = outcome.id;
        let Some(mut opening) = self.openings.borrow_mut().remove(&id) else { return };
        if outcome.redone.is_some() {
            opening.home.exists = true;
            self.rings.borrow_mut().done(&opening.home.log_dir, id);
        }
        if let (Some(end), Err(OpenError::Unnamed(_))) = (outcome.redone, &outcome.opened) {
            warn!("{}: what the journal has of it, up to offset {end}, is in its segments", opening.home.dir.display());
        }
        opening.redo = false;
        if outcome.lacks_what_was_redone() && !self.shared.knows_journal(&opening.home.log_dir) {
            info!("{}-{}: is served when its journal is in use", opening.key.0, id.partition);
            opening.waits = Some(Box::new(outcome));
            self.openings.borrow_mut().insert(id, opening);
            return;
        }
        self.serve(opening, outcome);
    }

    fn serve(&self, opening: Opening, Outcome { id, opened, corrupt, full, .. }: Outcome) {
        let local = self.topic_by_id(id.topic).expect("a topic is not removed while its logs are being opened");
        let (topic, index) = (&local.topic, id.partition);
        let Opening { mut home, log_start, recovery_point, .. } = opening;
        for error in full.iter().chain(opened.as_ref().err()) {
            if let OpenError::Io { path, source } = error {
                self.shared.disks.report(&home.log_dir, &format!("opening {}", path.display()), source);
            }
        }
        let mut core = match opened {
            Ok(opened) => self.take_log(&mut home, opened, opening.clean),
            Err(e) => offline(topic, index, &home, (recovery_point, log_start), &e.to_string()),
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
        if let Some(shortfall) = &opened.shortfall {
            error!("{shortfall}");
            self.shared.metrics.lost_offsets.add(shortfall.offsets());
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

    /// After the first image: takes each journal into use, once all that it held is in its segments. Until then what must
    /// be durable is synced by itself. No log directory waits for another: the disk of one may not answer.
    pub async fn begin_journals(&self, exists: impl Fn(TopicPartition) -> bool) {
        let log_dirs = self.rings.borrow().log_dirs();
        join_all(log_dirs.iter().map(|log_dir| self.begin_journal(log_dir, &exists))).await;
    }

    async fn begin_journal(&self, log_dir: &Path, exists: &impl Fn(TopicPartition) -> bool) {
        let mut redone = pin!(self.while_opening(|_, opening| opening.redo && opening.home.log_dir == log_dir));
        if tokio::time::timeout(REDO_PATIENCE, &mut redone).await.is_err() {
            let most = REDO_PATIENCE.as_secs();
            warn!("{}: what its journal holds is not back in the segments after {most} s", log_dir.display());
            redone.await;
        }
        let Some(ring) = self.rings.borrow_mut().take(log_dir) else { return };
        let journal = ring.begin(exists, &self.shared).await;
        self.shared.set_journal(log_dir.to_owned(), journal);
        let waits = |opening: &Opening| opening.waits.is_some() && opening.home.log_dir == log_dir;
        let waiting: Vec<_> = self.openings.borrow_mut().extract_if(|_, opening| waits(opening)).collect();
        for (_, mut opening) in waiting {
            let outcome = opening.waits.take().expect("chosen by it");
            self.serve(opening, *outcome);
        }
        self.opened.notify_waiters();
        // A ring that was not taken into use, and what waited for it, is in a directory that is offline.
        self.heed_disks();
    }
}

/// The log of a partition that cannot be opened. The checkpoints go on to say where it began, and up to where it was whole: the next
/// start would cut what it need not even read.
fn offline(
    topic: &Topic,
    index: PartitionIndex,
    home: &Home,
    (recovery_point, log_start): (Offset, Option<Offset>),
    reason: &str,
) -> LogCore {
    error!("{}-{index} is offline: {reason}", topic.name);
    LogCore::unopened(Rc::clone(&home.dir), log_start.unwrap_or(Offset(0)), recovery_point, Rc::from(reason))
}

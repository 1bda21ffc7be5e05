//! Compaction of a shard's partitions: which one is next, and how new segments take the place of old ones between requests.
//!
//! The work itself is a job of the maintenance thread (`maintenance::clean`). It offers one new segment after another; here each is
//! taken if the segments that it was made from are all still in the log. If retention or DeleteRecords took one meanwhile, the
//! pass ends there: what follows must not be replaced before what lies below (`log::compact` tells why).
//!
//! *Readers.* The new segment enters the log in memory first, with its file open, and then files change their names. Who holds an
//! old segment goes on reading the file that it has open; nobody opens an old one any more.
//!
//! *Names.* Removal of segments and replacement take turns (`Cleaning::names`), so that a file is never renamed two ways.
//!
//! *The journal.* What it has of a segment would go back to its old position there. So a pass begins when nothing of it is left
//! in the ring (`Journal::outlive`); sealed segments get no new entries. At a start none begins before the rings are renewed: until
//! then a second start would write back what they held at the first.

use super::leader::Partition;
use super::table::PartitionTable;
use crate::base::ids::Offset;
use crate::log::compact::plan::{Dirty, LogFacts, SegmentFacts};
use crate::log::compact::swap;
use crate::log::paths::{self, CLEANED_FILE};
use crate::log::segment::Segment;
use crate::maintenance::clean::{CleanError, Cleaned, NewSegment, Offer, Pass, Source, clean};
use crate::maintenance::{JobError, Lane};
use std::cell::Cell;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tracing::{error, info, warn};

/// A disk may be full, or answer no more: meanwhile other partitions are compacted.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(60);

/// `log.cleaner.dedupe.buffer.size` and `log.cleaner.io.buffer.load.factor`.
#[derive(Clone, Copy, Debug)]
pub struct CleanerMemory {
    pub map_bytes: u64,
    pub load_factor: f64,
}

/// A partition's part in it.
pub struct Cleaning {
    /// The first offset that no pass has covered, as the checkpoint says.
    cleaned: Cell<Option<Offset>>,
    /// Damage was found: no further pass before the next start, as in Kafka.
    given_up: Cell<bool>,
    /// A pass has failed: others come first.
    rests_until: Cell<Option<Instant>>,
    cancelled: Notify,
    /// Whoever changes the names of segments' files holds it.
    names: Arc<Semaphore>,
}

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Clean(#[from] CleanError),
    #[error(transparent)]
    Job(#[from] JobError),
    #[error("the journal: {0}")]
    Journal(io::Error),
}

impl Cleaning {
    pub fn new() -> Cleaning {
        let names = Arc::new(Semaphore::new(1));
        Cleaning {
            cleaned: Cell::new(None),
            given_up: Cell::new(false),
            rests_until: Cell::new(None),
            cancelled: Notify::new(),
            names,
        }
    }

    pub fn cleaned(&self) -> Option<Offset> {
        self.cleaned.get()
    }

    /// What the checkpoint said at start.
    pub fn set_cleaned(&self, cleaned: Option<Offset>) {
        self.cleaned.set(cleaned);
    }

    /// The partition goes: a pass that is under way ends.
    pub fn cancel(&self) {
        self.given_up.set(true);
        self.cancelled.notify_one();
    }

    pub fn names(&self) -> Arc<Semaphore> {
        Arc::clone(&self.names)
    }
}

impl Default for Cleaning {
    fn default() -> Cleaning {
        Cleaning::new()
    }
}

/// Compacts the dirtiest of the partitions that are due; None: none is. Tells whether the pass went through.
pub async fn clean_dirtiest(table: &PartitionTable, memory: CleanerMemory, now_ms: i64) -> Option<bool> {
    let mut dirtiest: Option<(Rc<Partition>, Dirty)> = None;
    for partition in table.all() {
        let Some(dirty) = partition.dirty(now_ms).await else { continue };
        if dirtiest.as_ref().is_none_or(|(_, other)| dirty.ratio() > other.ratio()) {
            dirtiest = Some((partition, dirty));
        }
    }
    let (partition, dirty) = dirtiest?;
    Some(partition.compact(&dirty, memory, now_ms).await)
}

impl Partition {
    /// What of the log is dirty, if a pass over it is due.
    pub(super) async fn dirty(self: &Rc<Self>, now_ms: i64) -> Option<Dirty> {
        let config = self.config();
        let rests = self.cleaning.rests_until.get().is_some_and(|until| Instant::now() < until);
        let is_able = !rests && !self.cleaning.given_up.get() && self.core().failure().is_none();
        if !config.cleanup_policy.compact || !is_able || !self.shared.knows_journal(&self.home().log_dir) {
            return None;
        }
        if config.max_compaction_lag_ms < i64::MAX {
            self.learn_first_timestamps().await;
        }
        let core = self.core();
        let asks_for_times = config.min_compaction_lag_ms > 0;
        let facts: Vec<SegmentFacts> = core.segments().iter().map(|s| facts_of(s, asks_for_times)).collect();
        let log = LogFacts {
            log_start: core.log_start(),
            end: core.written_end(),
            // What is not on disk is read by the next recovery, as it was written.
            stable: self.ends().high_watermark.min(core.recovery_point()),
            cleaned: self.cleaning.cleaned(),
            segments: &facts,
        };
        let dirty = Dirty::of(&log, &config, now_ms);
        // What is damaged stays as it is: something of it may be read yet.
        let is_damaged = core.corrupt().iter().any(|range| range.start.segment < dirty.first_uncleanable);
        (!is_damaged && dirty.is_due(&config)).then_some(dirty)
    }

    /// `max.compaction.lag.ms` counts from the first batch of each dirty segment.
    async fn learn_first_timestamps(&self) {
        let from = self.cleaning.cleaned().unwrap_or(Offset(0));
        let unknown: Vec<Rc<Segment>> = {
            let core = self.core();
            let sealed = core.segments().len().saturating_sub(1);
            let first = core.segments().partition_point(|segment| segment.base <= from).saturating_sub(1);
            let dirty = core.segments().iter().take(sealed).skip(first);
            dirty.filter(|segment| segment.size() > 0 && segment.first_timestamp().is_none()).cloned().collect()
        };
        for segment in unknown {
            let path = segment.path(paths::LOG);
            let read = tokio::task::spawn_blocking(move || Segment::read_first_timestamp(&path)).await;
            // What cannot be read now is asked for again.
            if let Ok(Ok(first)) = read {
                segment.learn_first_timestamp(first);
            }
        }
    }

    /// One pass; whether it went through.
    pub(super) async fn compact(self: &Rc<Self>, dirty: &Dirty, memory: CleanerMemory, now_ms: i64) -> bool {
        let begun = Instant::now();
        let name = format!("{}-{}", self.topic, self.index());
        let cleaned = match self.run_pass(self.pass(dirty, memory, now_ms)).await {
            Ok(Some(cleaned)) => cleaned,
            // The node stops, or the partition goes.
            Ok(None) | Err(PassError::Job(JobError::Stopped)) => return false,
            Err(PassError::Clean(e @ (CleanError::Corrupt { .. } | CleanError::TooLarge { .. }))) => {
                error!("{name}: compaction: {e}; it is not compacted any more until the next start");
                self.cleaning.given_up.set(true);
                if let CleanError::Corrupt { segment, .. } = e {
                    self.met_damage(segment);
                }
                return false;
            }
            Err(e) => {
                // For want of space only what compaction has just written goes again.
                if let PassError::Clean(CleanError::Io { source, .. }) = &e
                    && source.kind() != io::ErrorKind::StorageFull
                {
                    self.report("compaction", source);
                }
                warn!("{name}: compaction: {e}; it is tried again in {} s", REST_AFTER_FAILURE.as_secs());
                self.cleaning.rests_until.set(Some(Instant::now() + REST_AFTER_FAILURE));
                return false;
            }
        };
        let Some(end) = cleaned.end else { return false };
        self.cleaning.cleaned.set(Some(end));
        let metrics = &self.shared.metrics;
        metrics.compactions.add(1);
        metrics.compaction_read_bytes.add(cleaned.bytes_read);
        metrics.compaction_written_bytes.add(cleaned.bytes_written);
        let Cleaned { bytes_read, bytes_written, records_read, records_kept, map_utilization, .. } = cleaned;
        info!(
            "{name}: compacted up to offset {end} in {:.1} s: {records_read} records became {records_kept}, {bytes_read} bytes \
             were read, {bytes_written} written; keys took {:.0} % of their memory",
            begun.elapsed().as_secs_f64(),
            100.0 * map_utilization
        );
        true
    }

    fn pass(&self, dirty: &Dirty, memory: CleanerMemory, now_ms: i64) -> Pass {
        let core = self.core();
        let sources = core.segments().iter().take_while(|segment| segment.base < dirty.first_uncleanable);
        let source = |segment: &Rc<Segment>| Source {
            base: segment.base,
            bytes: segment.size(),
            modified_ms: segment.modified_ms(),
        };
        Pass {
            dir: self.home().dir.to_path_buf(),
            sources: sources.map(source).collect(),
            first_dirty: dirty.first_dirty,
            first_uncleanable: dirty.first_uncleanable,
            config: (*self.config()).clone(),
            last_batches: core.producers().last_batches_below(dirty.first_uncleanable),
            now_ms,
            map: (memory.map_bytes, memory.load_factor),
        }
    }

    /// None: cancelled.
    async fn run_pass(self: &Rc<Self>, pass: Pass) -> Result<Option<Cleaned>, PassError> {
        let journal = self.shared.journal(&self.home().log_dir);
        if let Some(journal) = journal {
            journal.outlive().await.map_err(PassError::Journal)?;
        }
        let dir = pass.dir.clone();
        let (offers, mut offered) = mpsc::channel::<Offer>(1);
        let job = self.shared.maintenance.run(Lane::Clean, async move |context| clean(context, pass, offers).await);
        let mut job = pin!(job);
        let ended = loop {
            tokio::select! {
                biased;
                () = self.cleaning.cancelled.notified() => return Ok(None),
                Some(offer) = offered.recv() => {
                    if self.take_in(offer.segment).await {
                        // The job may have been told to end.
                        let _ = offer.taken.send(());
                    }
                }
                ended = &mut job => break ended,
            }
        };
        let cleaned = ended?;
        if !matches!(cleaned, Ok(Cleaned { end: Some(_), .. })) {
            give_up(&dir).await;
        }
        Ok(Some(cleaned?))
    }

    /// Puts a new segment in the place of those that it was made from; false: they are not all there any more.
    async fn take_in(self: &Rc<Self>, new: NewSegment) -> bool {
        let (done, taken) = oneshot::channel();
        let this = Rc::clone(self);
        // Once begun it is done whole, even where nobody waits any more.
        self.tasks.spawn(async move {
            let _ = done.send(this.replace(new).await);
        });
        taken.await.unwrap_or(false)
    }

    async fn replace(&self, new: NewSegment) -> bool {
        let _names = self.cleaning.names.acquire().await.expect("the semaphore is never closed");
        let NewSegment { replacement, tail, indexes, modified_ms } = new;
        let base = replacement.old[0];
        let segment = Rc::new(Segment::compacted(Rc::clone(&self.home().dir), base, (tail, indexes), modified_ms));
        if !self.core().can_replace(&replacement.old) {
            return false;
        }
        // Until it has its name, nobody could open it. Held so long, it stays open.
        let opened = self.shared.files.open_as(&segment, &segment.path(&format!("{}{CLEANED_FILE}", paths::LOG)));
        let file = match opened {
            Ok(file) => file,
            Err(e) => {
                warn!("{}-{}: a compacted segment: {e}", self.topic, self.index());
                return false;
            }
        };
        self.core.borrow_mut().replace_segments(&replacement.old, &segment);
        let replaced = tokio::task::spawn_blocking(move || swap::replace(&replacement)).await;
        match replaced.map_err(io::Error::other).and_then(|replaced| replaced) {
            Ok(marked) => {
                self.remove_later(marked);
                segment.drop_indexes();
                drop(file);
                true
            }
            Err(e) => {
                // The next start finishes it, or takes it back: which of both is not known here.
                let what = format!("putting {} in its place", segment.path(paths::LOG).display());
                self.sync_failed.set(true);
                self.report(&what, &e);
                self.fail(&format!("{what}: {e}"));
                false
            }
        }
    }
}

fn facts_of(segment: &Segment, asks_for_times: bool) -> SegmentFacts {
    let max = if asks_for_times { segment.read_max_timestamp() } else { segment.max_timestamp() };
    SegmentFacts {
        base: segment.base,
        bytes: segment.size(),
        max_timestamp_ms: max.map(|(timestamp_ms, _)| timestamp_ms),
        first_timestamp_ms: segment.first_timestamp(),
        // The maintenance thread looks at the files.
        index_bytes: (0, 0),
    }
}

async fn give_up(dir: &Path) {
    let dir = dir.to_owned();
    // What is left is removed by the next pass, or at the next start.
    let _ = tokio::task::spawn_blocking(move || swap::give_up(&dir)).await;
}

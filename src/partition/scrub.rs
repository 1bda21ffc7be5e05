//! What a partition knows of damage in its log: how it learns of it, tells of it, keeps it, and forgets it.
//!
//! A reader that meets bytes which hold no batch answers CORRUPT_MESSAGE and has the segment looked through
//! (`Partition::met_damage`): what is damaged is told once, remembered durably beside the segments, and never served again,
//! while what lies before and behind is.

use super::leader::Partition;
use super::materialise;
use crate::base::ids::Offset;
use crate::base::limits::{CORRUPT_FILE_BYTES_MAX, SUSPECTS_MAX};
use crate::log::core::LogCore;
use crate::log::corrupt::{CORRUPT_RANGES, CorruptRange, CorruptRanges};
use crate::log::inspect::{Inspection, Subject};
use crate::log::paths;
use crate::log::segment::Segment;
use crate::maintenance::scrub::{self, Suspect};
use crate::maintenance::scrub_progress::Looked;
use crate::maintenance::{Context, JobError, Lane};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// A segment that was looked through is not looked through again for so long, whatever readers say of it.
const SUSPECT_AGAIN: Duration = Duration::from_secs(60);

/// What a partition remembers of suspicions, and of the list's file.
#[derive(Default)]
pub struct Damage {
    /// Segments that were looked through, or are just being, and since when.
    suspects: RefCell<Vec<(Offset, Instant)>>,
    /// The list has changed since it was written, or a write of it has failed.
    unsaved: Cell<bool>,
    saving: Cell<bool>,
    /// Ranges that the counters know of.
    counted: Cell<u64>,
    /// Gaps that were told, by segment.
    gaps: RefCell<BTreeMap<Offset, (Offset, Offset)>>,
}

/// Reads the list beside a log. One that cannot be read is told of: what it said is found anew by the next scrub. Blocking.
pub fn read(dir: &Path) -> Option<CorruptRanges> {
    let path = dir.join(CORRUPT_RANGES);
    let read = || {
        let mut text = String::new();
        File::open(&path)?.take(CORRUPT_FILE_BYTES_MAX).read_to_string(&mut text)?;
        io::Result::Ok(text)
    };
    let read = match read() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
        Err(e) => Err(e.to_string()),
        Ok(text) => CorruptRanges::decode(&text).map_err(|e| e.to_string()),
    };
    read.inspect_err(|e| warn!("{}: {e}: damage that was known is served until it is found again", path.display())).ok()
}

/// What the list says of a log that was opened now.
pub fn take(core: &mut LogCore, ranges: CorruptRanges) {
    let segments: Vec<_> = core.segments().iter().map(|segment| (segment.base, segment.size())).collect();
    let log_start = core.log_start();
    *core.corrupt_mut() = ranges;
    core.corrupt_mut().keep_existing(&segments);
    core.corrupt_mut().truncate_start(log_start);
}

impl Drop for Partition {
    /// What is not open any more is not counted.
    fn drop(&mut self) {
        self.shared.metrics.corrupt_ranges.subtract(self.damage.counted.get());
    }
}

impl Partition {
    /// A reader met bytes in a segment that hold no batch: has it looked through, unless that was done lately.
    pub fn met_damage(self: &Rc<Self>, segment: Offset) {
        let now = Instant::now();
        let mut suspects = self.damage.suspects.borrow_mut();
        suspects.retain(|(_, since)| now.duration_since(*since) < SUSPECT_AGAIN);
        if suspects.len() == SUSPECTS_MAX || suspects.iter().any(|(base, _)| *base == segment) {
            return;
        }
        let Some(segment) = self.segment_at(segment) else { return };
        suspects.push((segment.base, now));
        let this = Rc::clone(self);
        self.tasks.spawn(async move {
            let _turn = this.shared.inspections.acquire().await.expect("the semaphore is never closed");
            let what = format!("looking for damage in {}", segment.path(paths::LOG).display());
            if let Err(e) = this.look_through(&segment, Lane::Chore).await {
                warn!("{what}: {e}");
                this.report(&what, &e);
            }
        });
    }

    /// The segment with that base.
    fn segment_at(&self, base: Offset) -> Option<Rc<Segment>> {
        self.core.borrow().segment_of(base).filter(|segment| segment.base == base && segment.size() > 0).cloned()
    }

    /// The first segment behind `after` of which something lies below the recovery point; all of it is read then.
    pub fn next_to_scrub(&self, after: Option<Offset>) -> Option<Rc<Segment>> {
        let core = self.core.borrow();
        let recovery_point = core.recovery_point();
        let from = after.map_or(0, |after| core.segments().partition_point(|segment| segment.base <= after));
        let mut rest = core.segments().range(from..).take_while(|segment| segment.base < recovery_point);
        rest.find(|segment| segment.size() > 0 && core.failure().is_none()).cloned()
    }

    /// Has a segment looked through, and notes what is found. One that leaves the log meanwhile is no error.
    pub async fn look_through(self: &Rc<Self>, segment: &Rc<Segment>, lane: Lane) -> io::Result<Looked> {
        // A segment that compaction has just made does not have its name yet.
        drop(self.cleaning.names().acquire_owned().await);
        let suspect = self.suspect(segment);
        let subject = suspect.subject;
        let job = async move |context: Context| scrub::inspect(&context, suspect).await;
        let inspected = self.shared.maintenance.run(lane, job).await;
        if segment.is_removed() || self.deleted.get() {
            return Ok(Looked::default());
        }
        let inspection = match inspected {
            Ok(inspected) => inspected?,
            // Whoever stops the node needs no word of it.
            Err(JobError::Stopped) => return Ok(Looked::default()),
            Err(e) => return Err(io::Error::other(e)),
        };
        self.note_inspection(segment, &subject, &inspection);
        let has_gap = self.note_gap(segment, inspection.gap);
        Ok(Looked { is_damaged: !inspection.found.is_empty(), has_gap })
    }

    /// Tells of offsets that no batch of a segment has, once, unless compaction may have taken them; whether there are any.
    fn note_gap(&self, segment: &Segment, gap: Option<(Offset, Offset)>) -> bool {
        let log_start = self.core.borrow().log_start();
        let compacted = self.cleaning.cleaned().unwrap_or(Offset(0));
        let is_compacted = self.config.borrow().cleanup_policy.compact;
        let lost = gap.filter(|(_, to)| !is_compacted && *to > log_start.max(compacted));
        let mut told = self.damage.gaps.borrow_mut();
        told.retain(|_, (_, to)| *to > log_start);
        let Some((from, to)) = lost else {
            told.remove(&segment.base);
            return false;
        };
        if told.insert(segment.base, (from, to)) != Some((from, to)) {
            error!(
                "{}: no batch has offsets {from} up to {to}, although nothing was compacted: they are lost. What lies before \
                 and behind is served",
                segment.path(paths::LOG).display()
            );
        }
        true
    }

    /// A segment as it is now.
    fn suspect(&self, segment: &Segment) -> Suspect {
        let core = self.core.borrow();
        let end = core.segment_after(segment).map_or(core.written_end(), |next| next.base);
        let latest_epoch = core.epochs().latest().map(|epoch| epoch.0);
        let subject = Subject { base: segment.base, size: segment.size(), end, latest_epoch };
        Suspect { segment: segment.detached(), subject, index: segment.offset_index() }
    }

    /// Takes what was found in a segment: tells of what is new, forgets what is sound again, keeps both.
    fn note_inspection(self: &Rc<Self>, segment: &Rc<Segment>, subject: &Subject, inspection: &Inspection) {
        let path = segment.path(paths::LOG);
        let log_start = self.core.borrow().log_start();
        let mut core = self.core.borrow_mut();
        let before = core.corrupt().clone();
        let ranges: Vec<CorruptRange> = inspection.found.iter().map(|found| found.range).collect();
        core.corrupt_mut().replace(subject.base, subject.end, &ranges);
        core.corrupt_mut().truncate_start(log_start);
        let after = core.corrupt().clone();
        drop(core);
        for found in inspection.found.iter().filter(|found| before.holding(found.range.start).is_none()) {
            let CorruptRange { start, end, first, next } = found.range;
            error!(
                "{}: damaged from byte {} up to {}, offsets {first} up to {next}: {}. They are answered with \
                 CORRUPT_MESSAGE from now on; consumers can go on at offset {next}",
                path.display(),
                start.position,
                end.position,
                found.damage
            );
        }
        for range in before.iter().filter(|range| after.holding(range.start).is_none()) {
            info!("{}: sound again from byte {} on, offset {}", path.display(), range.start.position, range.first);
        }
        if inspection.index_disagrees.is_some() {
            self.rebuild_index(segment, inspection);
        }
        if before != after {
            self.damage_changed();
        }
    }

    /// A sealed segment's index files lead nowhere: they are made anew from the segment, unless that is damaged too.
    fn rebuild_index(self: &Rc<Self>, segment: &Rc<Segment>, inspection: &Inspection) {
        let at = inspection.index_disagrees.unwrap_or_default();
        let path = segment.path(paths::OFFSET_INDEX);
        let is_sealed = self.core.borrow().segment_after(segment).is_some();
        if !is_sealed || !inspection.found.is_empty() {
            return warn!("{}: has no entry as the segment has it at byte {at}", path.display());
        }
        warn!("{}: has no entry as the segment has it at byte {at}: it is made anew", path.display());
        let (this, segment) = (Rc::clone(self), Rc::clone(segment));
        let interval = self.config.borrow().index_interval_bytes;
        self.tasks.spawn(async move {
            let _names = this.cleaning.names().acquire_owned().await;
            let of = segment.detached();
            if segment.is_removed() {
                return;
            }
            match materialise::rebuild_indexes(of, interval).await {
                Ok(indexes) if segment.has_indexes() => segment.set_indexes(indexes),
                Ok(_) => {}
                Err(e) if segment.is_removed() => drop(e),
                Err(e) => warn!("{}-{}: making an index anew: {e}", this.topic, this.index()),
            }
        });
    }

    /// Forgets damage below the log's start, after that has moved.
    pub(super) fn forget_damage_below_start(self: &Rc<Self>) {
        let log_start = self.core.borrow().log_start();
        if self.core.borrow_mut().corrupt_mut().truncate_start(log_start) {
            self.damage_changed();
        }
    }

    /// Counts the ranges that were loaded.
    pub fn count_damage(&self) {
        let now = self.core.borrow().corrupt().len() as u64;
        let counter = &self.shared.metrics.corrupt_ranges;
        counter.subtract(self.damage.counted.replace(now));
        counter.add(now);
    }

    fn damage_changed(self: &Rc<Self>) {
        self.count_damage();
        self.damage.unsaved.set(true);
        self.save_damage();
    }

    /// Writes the list if it is not on disk as it is; tried again now and then where it failed.
    pub fn save_damage(self: &Rc<Self>) {
        if !self.damage.unsaved.get() || self.damage.saving.replace(true) {
            return;
        }
        let this = Rc::clone(self);
        self.tasks.spawn(async move {
            while this.damage.unsaved.replace(false) && !this.deleted.get() {
                let text =
                    Some(this.core.borrow().corrupt().encode()).filter(|_| !this.core.borrow().corrupt().is_empty());
                let dir = this.home.borrow().dir.to_path_buf();
                if let Err(e) = materialise::write_damage(dir, text).await {
                    warn!("{}-{}: writing the list of damaged ranges: {e}", this.topic, this.index());
                    this.damage.unsaved.set(true);
                    break;
                }
            }
            this.damage.saving.set(false);
        });
    }
}

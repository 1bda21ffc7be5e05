//! What leaves the log: by DeleteRecords, by retention, with its topic.

use super::{IDLE_AGE, Partition};
use crate::base::ids::Offset;
use crate::log::paths;
use crate::log::retain::{self, Plan};
use crate::log::segment::Segment;
use crate::partition::materialise::{self, Marked};
use crate::partition::unlink::Gently;
use crate::partition::waiters::Lost;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use tracing::warn;

impl Partition {
    /// DeleteRecords: the log begins at `to` from now on. The caller has checked it against the high watermark.
    pub fn delete_records(self: &Rc<Self>, to: Offset) {
        let gone = self.core.borrow_mut().raise_log_start(to);
        self.forget_damage_below_start();
        self.remove_files(gone);
    }

    /// Removes segments by the topic's retention time and size, and frees memory of a log that is not written to; returns
    /// how many segments went.
    pub fn enforce_retention(self: &Rc<Self>, now_ms: i64) -> usize {
        if self.core.borrow().failure().is_some() {
            return 0;
        }
        if self.last_write.get().is_some_and(|at| at.elapsed() > IDLE_AGE) {
            self.last_write.set(None);
            self.core.borrow_mut().release_memory();
        }
        // Until they are sealed they cannot go.
        self.seal_again();
        let mut gone = self.core.borrow_mut().remove_below_start();
        let config = self.config();
        let ends = self.ends();
        let planned = retain::plan(&self.core.borrow(), &config, ends.high_watermark, now_ms);
        let mut count = gone.len();
        match planned {
            Plan::RaiseTo(offset) => gone.extend(self.core.borrow_mut().raise_log_start(offset)),
            Plan::RemoveAll if !self.writing.get() => count += self.remove_all(now_ms),
            Plan::RemoveAll | Plan::Keep => {}
        }
        count = count.max(gone.len());
        self.forget_damage_below_start();
        self.save_damage();
        self.remove_files(gone);
        count
    }

    /// Writes wait until the segment that takes the place of all others has its file, and so do syncs: before it has, the old
    /// segments tell where the log ends. While a sync is under way nothing is removed: the next check will.
    fn remove_all(self: &Rc<Self>, now_ms: i64) -> usize {
        let Ok(no_sync) = Arc::clone(&self.syncs).try_acquire_owned() else { return 0 };
        self.writing.set(true);
        let (gone, next) = self.core.borrow_mut().remove_all_segments(now_ms);
        let snapshot = self.core.borrow().producers().encode(next.base);
        let count = gone.len();
        let dir = self.home.borrow().dir.to_path_buf();
        self.leaving.borrow_mut().extend(gone.iter().map(|segment| segment.detached()));
        let this = Rc::clone(self);
        self.tasks.spawn(async move {
            let _names = this.cleaning.names().acquire_owned().await;
            let gone = this.leaving.take();
            let replaced = materialise::replace_segments(dir, next.base, snapshot, gone).await;
            this.home.borrow_mut().made_names();
            this.writing.set(false);
            match replaced {
                Ok(marked) => {
                    this.remove_later(marked);
                    this.kick_writer();
                }
                Err(e) => {
                    this.sync_failed.set(true);
                    let what = format!("replacing expired segments by {}", next.path(paths::LOG).display());
                    this.report(&what, &e);
                    this.fail(&format!("{what}: {e}"));
                }
            }
            drop(no_sync);
        });
        count
    }

    /// They go oldest first. One that cannot keeps those after it until it can: were the checkpoint of log starts lost, a segment that
    /// is missing in the middle would be taken for damage.
    fn remove_files(self: &Rc<Self>, segments: Vec<Rc<Segment>>) {
        self.leaving.borrow_mut().extend(segments.iter().map(|segment| segment.detached()));
        if self.leaving.borrow().is_empty() {
            return;
        }
        let this = Rc::clone(self);
        self.tasks.spawn(async move {
            let _names = this.cleaning.names().acquire_owned().await;
            let leaving = this.leaving.take();
            if leaving.is_empty() {
                return;
            }
            let Marked { files, left, outcome } = materialise::mark_segments(leaving).await;
            this.leaving.borrow_mut().splice(..0, left);
            this.remove_later(files);
            if let Err(e) = outcome {
                warn!("{}-{}: removing old segments: {e}", this.topic, this.index());
                this.report("removing old segments", &e);
            }
        });
    }

    pub(in crate::partition) fn remove_later(&self, marked: Vec<PathBuf>) {
        let delay_ms = self.config.borrow().file_delete_delay_ms;
        let name = format!("{}-{}", self.topic, self.index());
        let gently = self.gently();
        tokio::task::spawn_local(async move {
            if let Err(e) = materialise::remove_marked(gently, marked, delay_ms).await {
                warn!("{name}: removing old segments: {e}");
            }
        });
    }

    fn gently(&self) -> Gently {
        Gently { disks: Arc::clone(&self.shared.disks), log_dir: self.home.borrow().log_dir.clone() }
    }

    /// The topic is gone: the directory gets a name that a new topic of the same name does not collide with, and its
    /// files go after the topic's `file.delete.delay.ms`.
    pub async fn delete(self: &Rc<Self>) {
        self.deleted.set(true);
        self.cleaning.cancel();
        self.core.borrow_mut().fail(Rc::from("the topic was deleted"));
        self.stalled.take();
        self.fail_waiters(Lost::Deleted);
        self.quiet().await;
        // The journal may know it for long; what it has open could not be removed gently.
        for segment in self.core.borrow().segments() {
            segment.close_if_unused();
        }
        let home = self.home.borrow().clone();
        if !home.exists {
            return;
        }
        let delay_ms = self.config.borrow().file_delete_delay_ms;
        if let Err(e) = materialise::remove_partition(self.gently(), home, (&self.topic, self.index()), delay_ms).await
        {
            warn!("{}-{}: removing its directory: {e}", self.topic, self.index());
        }
    }
}

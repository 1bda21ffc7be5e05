//! Reading what is not in memory: through io_uring, one range ahead of a reader that goes on, and out of the page cache again
//! behind it (`log::cold` decides what).

use crate::base::metrics::ShardMetrics;
use crate::log::cold::Dropped;
use crate::log::file::SegmentFile;
use crate::log::open_files::OpenFiles;
use crate::partition::leader::Partition;
use bytes::Bytes;
use rustix::fs::{Advice, fadvise};
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;

const PAGE_BYTES: u64 = 4096;
/// What looking for the offset has brought into memory already.
const PROBED_BYTES: u64 = 16 << 10;

/// Reads a range of which something is not in memory. `end`: what may be read of the file.
pub async fn read(
    partition: &Rc<Partition>,
    file: &Rc<SegmentFile>,
    (range, end): (Range<u64>, u64),
) -> io::Result<Bytes> {
    let files = partition.files();
    let (fresh, follows) = {
        let cold = files.cold.borrow();
        (cold.fresh(file, &range), cold.follows(file, &range))
    };
    // What others have in memory is theirs.
    let behind_probe = fresh.start + PROBED_BYTES..fresh.end;
    let is_ours = !behind_probe.is_empty()
        && !file.is_any_cached(behind_probe.start, (behind_probe.end - behind_probe.start) as usize);
    let bytes = file.read_at(range.start, (range.end - range.start) as usize).await?;
    let was_ahead = files.cold.borrow_mut().used(file, &range);
    if is_ours {
        let dropped = files.cold.borrow_mut().brought(file, fresh, false);
        drop_from_memory(partition.metrics(), dropped);
    }
    if follows || was_ahead {
        read_ahead(partition, file, (range, end));
    }
    Ok(bytes)
}

/// A range of a file is in memory, and not because it was just written.
pub fn used(partition: &Rc<Partition>, file: &Rc<SegmentFile>, (range, end): (Range<u64>, u64)) {
    let was_ahead = partition.files().cold.borrow_mut().used(file, &range);
    if was_ahead {
        read_ahead(partition, file, (range, end));
    }
}

/// Has the range behind this one read into memory, unless some of it is there: then somebody else reads it, or it is the tail.
fn read_ahead(partition: &Rc<Partition>, file: &Rc<SegmentFile>, (range, end): (Range<u64>, u64)) {
    let next = range.end..(range.end + (range.end - range.start)).min(end);
    let files: &OpenFiles = partition.files();
    let fresh = files.cold.borrow().fresh(file, &next);
    if fresh.is_empty() || file.is_any_cached(fresh.start, (fresh.end - fresh.start) as usize) {
        return;
    }
    let dropped = files.cold.borrow_mut().brought(file, fresh.clone(), true);
    drop_from_memory(partition.metrics(), dropped);
    let (file, metrics) = (Rc::clone(file), Arc::clone(partition.metrics()));
    partition.beside(async move {
        // What goes wrong is told to the reader that wants it.
        if file.read_at(fresh.start, (fresh.end - fresh.start) as usize).await.is_ok() {
            metrics.cold_ahead_bytes.add(fresh.end - fresh.start);
        }
    });
}

/// On a thread beside: where pages are in use the kernel waits for all cores.
fn drop_from_memory(metrics: &Arc<ShardMetrics>, dropped: Dropped) {
    for (file, range) in dropped {
        let start = range.start / PAGE_BYTES * PAGE_BYTES;
        let (Some(length), Ok(file)) = (NonZeroU64::new(range.end - start), file.as_fd().try_clone_to_owned()) else {
            continue;
        };
        metrics.cold_dropped_bytes.add(length.get());
        // It is an advice: nothing depends on it.
        tokio::task::spawn_blocking(move || fadvise(file, start, Some(length), Advice::DontNeed));
    }
}

//! Reading what is not in memory: through io_uring, one range ahead of a reader that goes on, and out of the page cache again
//! behind it (`log::cold` decides what).

use crate::base::limits::COLD_PIECE_BYTES;
use crate::base::metrics::ShardMetrics;
use crate::log::cold::{Coming, Dropped};
use crate::log::file::SegmentFile;
use crate::partition::leader::Partition;
use bytes::Bytes;
use rustix::fs::{Advice, fadvise};
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

const PAGE_BYTES: u64 = 4096;
/// What looking for the offset has brought into memory already.
const PROBED_BYTES: u64 = 16 << 10;

/// Waits for a range that is being read ahead; false: it is not. What the reader then finds in memory leaves without a copy.
pub async fn arrives(partition: &Rc<Partition>, file: &Rc<SegmentFile>, range: &Range<u64>) -> bool {
    let coming = partition.files().cold.borrow().coming(file, range);
    match coming {
        Some(coming) => {
            coming.ended().await;
            true
        }
        None => false,
    }
}

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
        let dropped = files.cold.borrow_mut().brought(file, fresh, None);
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
    let files = partition.files();
    let fresh = files.cold.borrow().fresh(file, &next);
    if fresh.is_empty() || file.is_any_cached(fresh.start, (fresh.end - fresh.start) as usize) {
        return;
    }
    let coming = Rc::new(Coming::default());
    let dropped = files.cold.borrow_mut().brought(file, fresh.clone(), Some(Rc::clone(&coming)));
    drop_from_memory(partition.metrics(), dropped);
    partition.metrics().cold_ahead_bytes.add(fresh.end - fresh.start);
    let Ok(file) = file.as_fd().try_clone_to_owned() else { return coming.end() };
    let read = tokio::task::spawn_blocking(move || bring(&file, fresh));
    tokio::task::spawn_local(async move {
        let _ = read.await;
        coming.end();
    });
}

/// Reads a range into memory in pieces, two of them under way at most: what is to be on disk before it is acknowledged waits in the
/// disk's queue behind no more. Without a copy, but for a byte of each that tells when it is there.
fn bring(file: &OwnedFd, range: Range<u64>) {
    let pieces =
        || range.clone().step_by(COLD_PIECE_BYTES as usize).map(|at| at..(at + COLD_PIECE_BYTES).min(range.end));
    let ask =
        |piece: Range<u64>| fadvise(file, piece.start, NonZeroU64::new(piece.end - piece.start), Advice::WillNeed);
    let mut ahead = pieces();
    let _ = ahead.next().map(ask);
    for piece in pieces() {
        let _ = ahead.next().map(ask);
        // Who wants what cannot be read meets the reason itself.
        if !matches!(rustix::io::pread(file, &mut [0u8; 1], piece.end - 1), Ok(1)) {
            return;
        }
    }
}

fn drop_from_memory(metrics: &ShardMetrics, dropped: Dropped) {
    for (file, range) in dropped {
        metrics.cold_dropped_bytes.add(range.end - range.start);
        forget(&file, range.start / PAGE_BYTES * PAGE_BYTES..range.end);
    }
}

/// On a thread beside: where pages are in use, it waits for all cores. Nothing depends on it.
fn forget(file: &SegmentFile, range: Range<u64>) {
    if let (Some(length), Ok(file)) = (NonZeroU64::new(range.end - range.start), file.as_fd().try_clone_to_owned()) {
        tokio::task::spawn_blocking(move || fadvise(file, range.start, Some(length), Advice::DontNeed));
    }
}

//! The job that looks through one segment for damage, past the page cache.

use super::Context;
use crate::base::disks::is_lost_sector;
use crate::log::index::OffsetIndex;
use crate::log::inspect::{Damage, Inspection, Inspector, Subject};
use crate::log::paths;
use crate::log::segment::DetachedSegment;
use crate::log::witness;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where sound bytes lie further ahead than this, the stream begins anew there.
const SKIP_BYTES: u32 = 1 << 20;
/// What a disk cannot read is found in pieces of this size, so that no more is given up for it.
const SECTOR_BYTES: u32 = 4096;

/// What is to be looked through.
#[derive(Clone, Debug)]
pub struct Suspect {
    pub segment: DetachedSegment,
    pub subject: Subject,
    /// The offset index where it is in memory; None: its file tells.
    pub index: Option<OffsetIndex>,
}

/// Looks through the segment. An error means that nothing was learnt: a segment that was removed meanwhile is one, and so is a disk
/// that gives back nothing of it, nor anything else of its log directory.
pub async fn inspect(context: &Context, suspect: Suspect) -> io::Result<Inspection> {
    let Suspect { segment, subject, index } = suspect;
    let path = segment.path(paths::LOG);
    let of = path.clone();
    let (index, length) = context
        .blocking(move || {
            let on_disk = || segment.read_indexes().map(|indexes| indexes.offsets).unwrap_or_default();
            io::Result::Ok((index.unwrap_or_else(on_disk), fs::metadata(of)?.len()))
        })
        .await??;
    let length = u32::try_from(length).unwrap_or(u32::MAX).min(subject.size);
    let mut inspector = Inspector::new(subject, index);
    while let Some(at) = inspector.wants() {
        if at >= length {
            inspector.file_ended();
            continue;
        }
        if let Err(e) = stream(context, &path, (at, length), &mut inspector).await {
            if !is_lost_sector(&e) {
                return Err(e);
            }
            sift(context, &path, length, &mut inspector).await?;
        }
    }
    let inspection = inspector.finish();
    if inspection.batches == 0 && inspection.found.iter().any(|found| found.damage == Damage::Unreadable) {
        let answers = context.blocking_with_streams(move |streams| {
            witness::is_disk_there(&path, &|path, part| {
                Ok(Box::new(streams.read(path, u64::from(part.start)..u64::from(part.end))?))
            })
        });
        if !answers.await? {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
    }
    Ok(inspection)
}

/// Reads on as long as what is wanted lies ahead.
async fn stream(context: &Context, path: &Path, (at, length): (u32, u32), inspector: &mut Inspector) -> io::Result<()> {
    let mut reader = context.read(path, u64::from(at)..u64::from(length)).await?;
    loop {
        let position = u32::try_from(reader.position()).unwrap_or(u32::MAX);
        let ahead = inspector.wants().and_then(|wanted| wanted.checked_sub(position));
        if ahead.is_none_or(|ahead| ahead > SKIP_BYTES) {
            return Ok(());
        }
        let Some(chunk) = reader.next().await? else { return Ok(()) };
        inspector.feed(position, &chunk);
    }
}

/// Goes on in small pieces until it has passed the one that cannot be read.
async fn sift(context: &Context, path: &Path, length: u32, inspector: &mut Inspector) -> io::Result<()> {
    while let Some(at) = inspector.wants().filter(|at| *at < length) {
        let end = (at / SECTOR_BYTES * SECTOR_BYTES).saturating_add(SECTOR_BYTES).min(length);
        let (of, lost) = (path.to_owned(), context.lost().read(path, &(u64::from(at)..u64::from(end))));
        let read = context
            .blocking(move || {
                let mut bytes = vec![0; (end - at) as usize];
                File::open(of)?.read_exact_at(&mut bytes, u64::from(at))?;
                io::Result::Ok(bytes)
            })
            .await?;
        match lost.and(read) {
            Ok(bytes) => inspector.feed(at, &bytes),
            Err(e) if is_lost_sector(&e) => {
                inspector.unreadable(end);
                return Ok(());
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

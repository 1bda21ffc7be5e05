//! Opens logs that lie on disk, on the maintenance thread: a shard serves what is open while others are being recovered.
//!
//! What a journal holds for a partition is put back first, then the directory is opened (`log::open`). What must be looked
//! through comes by direct I/O, several partitions side by side.

use super::materialise::{Home, redo_journaled};
use super::scrub;
use crate::base::config::TopicConfig;
use crate::base::disks::{Harm, LogDirs};
use crate::base::ids::{Offset, TopicPartition};
use crate::base::limits::{OPENED_TOGETHER_MAX, RECOVERIES_AT_ONCE_MAX};
use crate::log::corrupt::CorruptRanges;
use crate::log::file::forget_cached;
use crate::log::open::{self, OpenError, OpenParams, Opened, ReadPart, read_part};
use crate::log::redo::RedoWrite;
use crate::log::reserve;
use crate::log::witness;
use crate::maintenance::{Context, JobError, Lane, Maintenance, Streams};
use futures_util::stream::{self, Stream, StreamExt};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// For parts up to so many bytes a stream costs more.
const STREAM_BYTES_MIN: u32 = 256 << 10;

/// A partition that is to be opened. Plain data.
pub struct Unopened {
    pub id: TopicPartition,
    pub topic: Arc<str>,
    pub log_dir: PathBuf,
    /// The partition has a directory.
    pub exists: bool,
    pub params: OpenParams,
    pub config: TopicConfig,
    /// Why nobody can say whose directory it is: what a journal holds goes there, but it is not opened.
    pub unnamed: Option<Arc<str>>,
    /// What a journal holds for it.
    pub redo: Vec<RedoWrite>,
    /// Up to where that went, once it is in its segments, synced.
    pub redone: Option<Offset>,
}

/// A partition that was opened, or could not be.
pub struct Outcome {
    pub id: TopicPartition,
    pub opened: Result<Opened, OpenError>,
    /// Damage that is known of it.
    pub corrupt: Option<CorruptRanges>,
    /// The end of what the journal held and is in the segments now, synced.
    pub redone: Option<Offset>,
    /// The disk was full at the first attempt, and its reserve was given up.
    pub full: Option<OpenError>,
}

impl Outcome {
    /// Something before it was lost, and it went with that. Until the journal has forgotten it, a start would write it again.
    pub fn lacks_what_was_redone(&self) -> bool {
        let end = self.opened.as_ref().map(|opened| opened.log.end);
        self.redone.is_some_and(|redone| end.is_ok_and(|end| end < redone))
    }
}

/// Opens all of them; gives them as they are done, of each log directory those first that a journal has nothing for. Those in one
/// directory wait for none in another. The stream ends early if the node stops.
pub fn open_all(
    maintenance: &Maintenance,
    disks: &Arc<LogDirs>,
    mut all: Vec<Unopened>,
) -> impl Stream<Item = Vec<Outcome>> + use<> {
    all.sort_by_key(|unopened| !unopened.redo.is_empty());
    let mut by_dir: BTreeMap<PathBuf, Vec<Unopened>> = BTreeMap::new();
    for unopened in all {
        by_dir.entry(unopened.log_dir.clone()).or_default().push(unopened);
    }
    let streams = by_dir.into_iter().map(|(log_dir, all)| {
        let (maintenance, disks) = (maintenance.clone(), Arc::clone(disks));
        let jobs = stream::iter(batches(all)).map(move |batch| {
            let (maintenance, disks, log_dir) = (maintenance.clone(), Arc::clone(&disks), log_dir.clone());
            async move {
                let ids: Vec<_> = batch.iter().map(|unopened| (unopened.id, unopened.params.dir.clone())).collect();
                tokio::select! {
                    biased;
                    opened = async {
                        let _turn = disks.recovery_turn(&log_dir).await;
                        open_on(&maintenance, &ids, batch).await
                    } => opened,
                    // It may hang, and is not waited for.
                    () = disks.went_offline(&log_dir) => Some(failed(&ids, "its log directory is offline")),
                }
            }
        });
        Box::pin(jobs.buffer_unordered(2 * RECOVERIES_AT_ONCE_MAX))
    });
    stream::select_all(streams).take_while(|batch| std::future::ready(batch.is_some())).filter_map(std::future::ready)
}

/// None: the node stops.
async fn open_on(
    maintenance: &Maintenance,
    ids: &[(TopicPartition, PathBuf)],
    batch: Vec<Unopened>,
) -> Option<Vec<Outcome>> {
    match maintenance.run(Lane::Recovery, async move |context| open_batch(&context, batch).await).await {
        Ok(Ok(outcomes)) => Some(outcomes),
        Ok(Err(_)) | Err(JobError::Panicked) => Some(failed(ids, "opening it panicked")),
        Err(JobError::Stopped) => None,
    }
}

fn failed(ids: &[(TopicPartition, PathBuf)], why: &'static str) -> Vec<Outcome> {
    let failed = |(id, dir): &(TopicPartition, PathBuf)| {
        let opened = Err(OpenError::Io { path: dir.clone(), source: io::Error::other(why) });
        Outcome { id: *id, opened, corrupt: None, redone: None, full: None }
    };
    ids.iter().map(failed).collect()
}

/// After a clean stop opening is so quick that handing it over would cost more.
fn batches(all: Vec<Unopened>) -> Vec<Vec<Unopened>> {
    let mut batches: Vec<Vec<Unopened>> = Vec::new();
    for unopened in all {
        match batches.last_mut() {
            Some(batch) if unopened.params.clean && batch[0].params.clean && batch.len() < OPENED_TOGETHER_MAX => {
                batch.push(unopened);
            }
            _ => batches.push(vec![unopened]),
        }
    }
    batches
}

async fn open_batch(context: &Context, batch: Vec<Unopened>) -> io::Result<Vec<Outcome>> {
    context.blocking_with_streams(move |streams| batch.into_iter().map(|one| open_by(one, streams)).collect()).await
}

/// Reads by direct I/O what is worth it; after an unclean stop everything comes from the disk.
fn read_by(streams: &Streams, is_clean: bool) -> impl Fn(&Path, Range<u32>) -> io::Result<Box<dyn Read>> {
    move |path, range| {
        if range.end - range.start < STREAM_BYTES_MIN {
            if !is_clean {
                forget_cached(&File::open(path)?, u64::from(range.start))?;
            }
            return read_part(path, range);
        }
        Ok(Box::new(streams.read(path, u64::from(range.start)..u64::from(range.end))?))
    }
}

fn open_by(unopened: Unopened, streams: &Streams) -> Outcome {
    let is_clean = unopened.params.clean && unopened.redo.is_empty();
    with_witness(open_one(unopened, &read_by(streams, is_clean)), &read_by(streams, false))
}

/// What cannot be read of a segment is the partition's loss, unless nothing else of the log directory can be read either. Blocking.
pub(super) fn with_witness(mut outcome: Outcome, read: ReadPart) -> Outcome {
    outcome.opened = outcome.opened.map_err(|error| match error {
        OpenError::Unreadable { path, source } if !witness::is_disk_there(&path, read) => {
            OpenError::Io { path, source }
        }
        other => other,
    });
    outcome
}

/// Blocking.
pub(super) fn open_one(mut unopened: Unopened, read: ReadPart) -> Outcome {
    let mut full = None;
    loop {
        let opened = redo_and_open(&mut unopened, read);
        if let Err(e) = opened.as_ref().map_err(is_full)
            && e
            && full.is_none()
            && reserve::release(&unopened.log_dir).is_ok()
        {
            // The reserve is kept for this.
            full = opened.err();
            continue;
        }
        let corrupt = scrub::read(&unopened.params.dir);
        return Outcome { id: unopened.id, opened, corrupt, redone: unopened.redone, full };
    }
}

fn is_full(error: &OpenError) -> bool {
    matches!(error, OpenError::Io { source, .. } if Harm::of(source) == Harm::Full)
}

/// Puts back what a journal has for a log, then opens it.
fn redo_and_open(unopened: &mut Unopened, read: ReadPart) -> Result<Opened, OpenError> {
    let Unopened { id, topic, log_dir, exists, params, config, unnamed, redo, redone } = unopened;
    if !redo.is_empty() {
        let home = Home::new(log_dir, topic, id.partition, *exists);
        redo_journaled(&home, (topic, *id), params.log_start, redo)
            .map_err(|source| OpenError::Io { path: params.dir.clone(), source })?;
        (*exists, params.clean) = (true, false);
        *redone = redo.iter().map(|write| write.end).max();
        *redo = Vec::new();
    }
    match unnamed {
        Some(why) => Err(OpenError::Unnamed(Arc::clone(why))),
        None => open::open(params, config, read),
    }
}

//! Reading a partition of `__consumer_offsets` from its begin to its end: the newest record of each key counts.
//!
//! As Kafka's newer coordinator has it, records of a kind that is not known are passed over, and one of a known kind that cannot be read
//! leaves the partition unserved: an older value of its key would count instead, and consumers go back to where they were long ago.

use super::Slice;
use crate::base::ids::Offset;
use crate::group::classic::GroupRecord;
use crate::group::consumer::Stored;
use crate::group::consumer::record::Record;
use crate::group::offsets::Offsets;
use crate::group::records::{CommittedOffset, Key, RecordError};
use crate::log::read::{Located, ReadError, locate};
use crate::partition::leader::Partition;
use crate::record::batch::BatchHeader;
use crate::record::records::{Records, RecordsError};
use bytes::Bytes;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tracing::{debug, error, info, warn};

/// One read, unless a batch is larger.
const READ_BYTES: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the batch at offset {offset} cannot be read: {source}")]
    Batch { offset: Offset, source: RecordsError },
    #[error("it is offline: {0}")]
    Offline(Rc<str>),
    #[error("it ends at offset {found} now, and ended at {end}")]
    Ends { found: Offset, end: Offset },
    #[error("no batch is where one must begin, at offset {offset}")]
    NoBatch { offset: Offset },
    #[error("the record at offset {offset} cannot be read: {source}")]
    Record { offset: Offset, source: RecordError },
}

#[derive(Default)]
struct Loading {
    groups: BTreeMap<String, LoadedGroup>,
    records: u64,
    /// Kinds of records that are not known.
    strange: BTreeSet<i16>,
}

/// What a shard loads at a time, told of in one line.
#[derive(Default)]
pub(super) struct Loads {
    under_way: Cell<usize>,
    done: Cell<Done>,
}

#[derive(Clone, Copy, Default)]
struct Done {
    partitions: usize,
    groups: usize,
    records: u64,
    took: Duration,
}

impl Loads {
    /// One is through, or cannot be loaded. With the last of them it tells what they had, if that is anything.
    fn end(&self, groups: usize, records: u64, took: Duration) {
        let left = self.under_way.get() - 1;
        self.under_way.set(left);
        let before = self.done.get();
        let done = Done {
            partitions: before.partitions + usize::from(records > 0),
            groups: before.groups + groups,
            records: before.records + records,
            took: before.took.max(took),
        };
        self.done.set(if left == 0 { Done::default() } else { done });
        if left == 0 && done.records > 0 {
            let Done { partitions, groups, records, took } = done;
            info!("{groups} groups loaded from {records} records of {partitions} partitions in {took:?}");
        }
    }
}

/// What the log says about a group.
#[derive(Default)]
pub(super) struct LoadedGroup {
    pub classic: Option<GroupRecord>,
    pub consumer: Stored,
    pub offsets: Offsets,
}

/// Loads the slice in the background.
pub(super) fn begin(slice: &Rc<Slice>) {
    let this = Rc::clone(slice);
    slice.shared.loads.under_way.set(slice.shared.loads.under_way.get() + 1);
    slice.tasks.spawn(async move {
        let begun = Instant::now();
        let name = format!("{}-{}", super::OFFSETS_TOPIC, this.partition().index());
        let (groups, records) = match load(&this).await {
            Ok(loading) => {
                let (records, groups) = (loading.records, loading.groups.len());
                this.loaded(loading.groups).await;
                debug!("{name}: {groups} groups loaded from {records} records in {:?}", begun.elapsed());
                (groups, records)
            }
            Err(e) => {
                error!("{name}: its groups cannot be loaded, and are not served: {e}");
                this.cannot_be_loaded();
                (0, 0)
            }
        };
        this.shared.loads.end(groups, records, begun.elapsed());
    });
}

async fn load(slice: &Rc<Slice>) -> Result<Loading, LoadError> {
    let partition = slice.partition();
    check_sound(partition)?;
    let mut loading = Loading::default();
    let end = partition.ends().log_end;
    let mut from = partition.ends().log_start;
    while from < end && !slice.is_over() {
        let Some(bytes) = read(partition, from, end).await? else {
            // Compaction may have taken away all that was there; a log that has become shorter is another matter.
            let found = partition.core().written_end();
            if found < end {
                return Err(LoadError::Ends { found, end });
            }
            break;
        };
        let before = from;
        from = loading.take(from, &bytes)?;
        if from == before {
            return Err(LoadError::NoBatch { offset: from });
        }
        // Requests have their turn between two reads.
        tokio::task::yield_now().await;
    }
    check_sound(partition)?;
    let exists = |group: &LoadedGroup| group.classic.is_some() || group.consumer.exists() || !group.offsets.is_empty();
    loading.groups.retain(|_, group| exists(group));
    Ok(loading)
}

/// A log that is offline looks empty, which must not be told as "nothing was committed".
fn check_sound(partition: &Partition) -> Result<(), LoadError> {
    partition.core().failure().map_or(Ok(()), |reason| Err(LoadError::Offline(Rc::clone(reason))))
}

/// Whole batches from the one that holds `from` on, and perhaps a part of one more.
async fn read(partition: &Rc<Partition>, from: Offset, end: Offset) -> Result<Option<Bytes>, LoadError> {
    loop {
        let interval = partition.config().index_interval_bytes;
        let located = locate(&partition.core(), partition.files(), (from, end), interval)?;
        match located {
            Located::AtEnd => return Ok(None),
            Located::Missing(missing) => missing.load(partition.files()).await?,
            Located::At(span) => {
                let length = READ_BYTES.max(span.first_batch_bytes as usize).min((span.end - span.position) as usize);
                let file = partition.files().file(&span.segment)?;
                return Ok(Some(file.read_at(u64::from(span.position), length).await?));
            }
        }
    }
}

impl Loading {
    /// Takes what whole batches say; gives the offset behind them.
    fn take(&mut self, mut next: Offset, mut bytes: &[u8]) -> Result<Offset, LoadError> {
        while let Ok(header) = BatchHeader::parse(bytes) {
            let Some((batch, rest)) = bytes.split_at_checked(header.total_len()) else { break };
            bytes = rest;
            next = header.next_offset();
            if header.is_control() {
                continue;
            }
            let wrong = |source| LoadError::Batch { offset: header.base_offset, source };
            let mut records = Records::new(&header, batch).map_err(wrong)?;
            while let Some(record) = records.next().map_err(wrong)? {
                let offset = record.offset;
                self.records += 1;
                let key = record.key.ok_or(RecordError::Null { what: "key" });
                let noted = key.and_then(|key| self.note(offset.0, key, record.value));
                noted.map_err(|source| LoadError::Record { offset, source })?;
            }
        }
        Ok(next)
    }

    fn note(&mut self, record_at: i64, key: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
        match Key::decode(key)? {
            Key::Offset { group, topic, partition } => {
                let offsets = &mut self.groups.entry(group).or_default().offsets;
                let of = (topic, partition);
                match value {
                    Some(value) => offsets.put(of, record_at, CommittedOffset::decode(value)?),
                    None => offsets.forget(&of, record_at),
                }
            }
            Key::Group { group } => {
                let record = value.map(GroupRecord::decode).transpose()?;
                self.groups.entry(group).or_default().classic = record;
            }
            Key::Consumer { group, subject } => {
                let record = Record::decode(subject, value)?;
                self.groups.entry(group).or_default().consumer.take(record);
            }
            // Of Kafka's share groups, and what is newer than we are.
            Key::Other { version } => {
                if self.strange.insert(version) {
                    let topic = super::OFFSETS_TOPIC;
                    warn!(
                        "records of kind {version} in {topic} are passed over, as from offset {record_at} on: it is not known"
                    );
                }
            }
        }
        Ok(())
    }
}

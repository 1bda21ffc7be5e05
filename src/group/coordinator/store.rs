//! Records on their way into `__consumer_offsets`.

use crate::base::clock::now_ms;
use crate::group::consumer::record::Record;
use crate::group::records::Key;
use crate::log::core::AppendError;
use crate::partition::leader::{Acks, Partition};
use crate::partition::waiters::{AppendWait, Lost};
use crate::record::batch::BatchHeader;
use crate::record::builder::BatchBuilder;
use crate::record::compression::Compression;
use kafka_protocol::ResponseError;
use std::rc::Rc;

/// An append that is under way, or was refused.
pub struct Stored {
    base: Result<Option<i64>, ResponseError>,
    /// One for each batch.
    waits: Vec<Rc<AppendWait>>,
}

/// Bytes of a batch's header, and of a record beside its key and value, at most.
const BATCH_HEADER_BYTES: usize = 61;
const RECORD_OVERHEAD_BYTES: usize = 32;

/// Appends records in one batch, so that all of them are there or none. A value of None takes its key's meaning away.
pub fn append(partition: &Rc<Partition>, records: &[(Key, Option<Vec<u8>>)]) -> Stored {
    let mut stored = append_commit(partition, records);
    if stored.base == Err(ResponseError::InvalidCommitOffsetSize) {
        // Kafka's answer for what does not fit into one batch.
        stored.base = Err(ResponseError::UnknownServerError);
    }
    stored
}

/// The same for committed offsets: INVALID_COMMIT_OFFSET_SIZE if they do not fit into one batch.
pub fn append_commit(partition: &Rc<Partition>, records: &[(Key, Option<Vec<u8>>)]) -> Stored {
    let wait = AppendWait::new();
    let base = if records.is_empty() { Ok(None) } else { try_append(partition, records, &wait).map(Some) };
    Stored { base, waits: vec![wait] }
}

/// How many of the keys' tombstones fit into one batch, but one at least: an append will tell if that is too large.
pub fn tombstones_fit(partition: &Partition, keys: &[Key]) -> usize {
    let mut left = (partition.config().max_message_bytes as usize).saturating_sub(BATCH_HEADER_BYTES);
    let fits = keys.iter().take_while(|key| {
        let bytes = key.encode().len() + RECORD_OVERHEAD_BYTES;
        let fits = bytes <= left;
        left = left.saturating_sub(bytes);
        fits
    });
    fits.count().max(1)
}

fn try_append(
    partition: &Rc<Partition>,
    records: &[(Key, Option<Vec<u8>>)],
    wait: &Rc<AppendWait>,
) -> Result<i64, ResponseError> {
    if !partition.leads() {
        return Err(ResponseError::NotCoordinator);
    }
    let mut batch = BatchBuilder::new(Compression::NONE);
    let now_ms = now_ms();
    for (key, value) in records {
        let pushed = batch.push(now_ms, Some(&key.encode()), value.as_deref(), &[]);
        pushed.map_err(|_| ResponseError::InvalidCommitOffsetSize)?;
    }
    let bytes = batch.build().map_err(|_| ResponseError::InvalidCommitOffsetSize)?;
    if bytes.len() > partition.config().max_message_bytes as usize {
        return Err(ResponseError::InvalidCommitOffsetSize);
    }
    let header = BatchHeader::parse(&bytes).map_err(|_| ResponseError::UnknownServerError)?;
    match partition.append(header, bytes, Acks::All, (wait, 0)) {
        Ok(appended) => Ok(appended.base_offset.0),
        Err(AppendError::Failed(_)) => Err(ResponseError::NotCoordinator),
        Err(AppendError::Producer(_)) => Err(ResponseError::UnknownServerError),
    }
}

/// A record of a group of the new protocol, as it is appended.
pub fn of_consumer(group: &str, record: &Record) -> (Key, Option<Vec<u8>>) {
    (Key::Consumer { group: group.to_owned(), subject: record.subject() }, record.encode_value())
}

impl Stored {
    /// Why nothing is on its way to the log.
    pub fn refused(&self) -> Option<ResponseError> {
        self.base.as_ref().err().copied()
    }

    pub fn nothing() -> Stored {
        Stored { base: Ok(None), waits: Vec::new() }
    }

    /// Nothing was to be appended.
    pub fn is_nothing(&self) -> bool {
        self.base == Ok(None)
    }

    /// The offset of the first record, if something is on its way to the log.
    pub fn base(&self) -> Option<i64> {
        self.base.ok().flatten()
    }

    /// Both: the first error of either is the error.
    pub fn and(mut self, later: Stored) -> Stored {
        self.base = match (self.base, later.base) {
            (Ok(first), Ok(later)) => Ok(first.or(later)),
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        self.waits.extend(later.waits);
        self
    }

    /// Ends when the records are as safe as acks=all promises; gives the offset of the first (0 if there was none). An error though
    /// there is a `base`: they may be in the log all the same, or get there later.
    pub async fn done(self) -> Result<i64, ResponseError> {
        let base = self.base?;
        for wait in self.waits {
            match wait.done().await.first() {
                None => {}
                Some((_, Lost::Deleted)) => return Err(ResponseError::CoordinatorNotAvailable),
                // Clients look for another coordinator, as they do with Kafka.
                Some((_, Lost::Failed | Lost::Moved)) => return Err(ResponseError::NotCoordinator),
            }
        }
        Ok(base.unwrap_or(0))
    }
}

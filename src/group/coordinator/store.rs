//! Records on their way into `__consumer_offsets`.

use crate::base::clock::now_ms;
use crate::group::consumer::record::Record;
use crate::group::records::Key;
use crate::log::core::AppendError;
use crate::partition::leader::{Acks, Partition};
use crate::partition::tasks::Tasks;
use crate::partition::waiters::{AppendWait, Lost};
use crate::record::batch::BatchHeader;
use crate::record::builder::BatchBuilder;
use crate::record::compression::Compression;
use kafka_protocol::ResponseError;
use std::rc::Rc;

/// An append that is under way, or was refused.
pub struct Stored {
    base: Result<Option<i64>, ResponseError>,
    wait: Rc<AppendWait>,
}

/// Appends records in one batch, so that all of them are there or none. A value of None takes its key's meaning away.
pub fn append(partition: &Rc<Partition>, records: &[(Key, Option<Vec<u8>>)]) -> Stored {
    let wait = AppendWait::new();
    let base = if records.is_empty() { Ok(None) } else { try_append(partition, records, &wait).map(Some) };
    Stored { base, wait }
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

/// The records of a group of the new protocol, as they are appended.
pub fn of_consumer(group: &str, records: &[Record]) -> Vec<(Key, Option<Vec<u8>>)> {
    let key = |record: &Record| Key::Consumer { group: group.to_owned(), subject: record.subject() };
    records.iter().map(|record| (key(record), record.encode_value())).collect()
}

impl Stored {
    /// Why nothing is on its way to the log.
    pub fn refused(&self) -> Option<ResponseError> {
        self.base.as_ref().err().copied()
    }

    pub fn nothing() -> Stored {
        Stored { base: Ok(None), wait: AppendWait::new() }
    }

    /// Ends when the records are as safe as acks=all promises; gives the offset of the first (0 if there was none).
    pub async fn done(self) -> Result<i64, ResponseError> {
        let base = self.base?;
        match self.wait.done().await.first() {
            None => Ok(base.unwrap_or(0)),
            Some((_, Lost::Deleted)) => Err(ResponseError::CoordinatorNotAvailable),
            // Clients look for another coordinator, as they do with Kafka.
            Some((_, Lost::Failed | Lost::Moved)) => Err(ResponseError::NotCoordinator),
        }
    }

    /// Nobody waits for it.
    pub fn detach(self, tasks: &Tasks) {
        tasks.spawn(async move {
            if let Err(error) = self.done().await {
                tracing::warn!("what was forgotten about groups is not stored, and may come back: {error:?}");
            }
        });
    }
}

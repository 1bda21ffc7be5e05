//! Reading for one fetch: what each partition answers now, as slices of files.

use super::session::{Told, TopicKey, Wanted};
use crate::api::context::ShardContext;
use crate::api::leaders;
use crate::base::ids::{LeaderEpoch, Offset};
use crate::base::limits::COLD_READ_BYTES_MAX;
use crate::log::core::ReadSpan;
use crate::log::file::SegmentFile;
use crate::log::read::{Located, Missing, locate};
use crate::partition::leader::Partition;
use crate::wire::encode::Pieces;
use crate::wire::reply::{FileSlice, Piece};
use kafka_protocol::ResponseError;
use std::rc::Rc;
use std::sync::Arc;
use tracing::error;

/// What one partition answers.
pub struct PartitionAnswer {
    pub error: Option<ResponseError>,
    /// The topic's name, where it is known: for the leader's address.
    pub topic: Option<Arc<str>>,
    pub high_watermark: Offset,
    pub log_start: Offset,
    /// KIP-595: where the client's log and ours part.
    pub diverging: Option<(LeaderEpoch, Offset)>,
    pub records: Pieces,
}

/// The answers of all partitions.
pub struct Collected {
    pub answers: Vec<PartitionAnswer>,
    pub bytes: usize,
    /// Something must be told without waiting for more bytes.
    pub urgent: bool,
}

/// What must be read from disk before the answers can be collected.
pub enum Obstacle {
    Lookup(Rc<Partition>, Missing),
    /// Cold records: the place in the request, and what to read.
    Records {
        place: usize,
        file: Rc<SegmentFile>,
        position: u64,
        length: usize,
    },
}

/// Limits of one fetch.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_bytes: usize,
    /// The first batch is sent even if it is larger than the limits (Fetch 3 and later).
    pub first_batch_whole: bool,
}

const UNKNOWN: Offset = Offset(-1);

impl PartitionAnswer {
    pub fn failed(code: ResponseError) -> PartitionAnswer {
        PartitionAnswer::error(code, None)
    }

    fn error(code: ResponseError, topic: Option<Arc<str>>) -> PartitionAnswer {
        PartitionAnswer {
            error: Some(code),
            topic,
            high_watermark: UNKNOWN,
            log_start: UNKNOWN,
            diverging: None,
            records: Pieces::new(),
        }
    }

    pub fn bytes(&self) -> usize {
        self.records.iter().map(Piece::len).sum()
    }

    pub fn told(&self) -> Told {
        Told {
            high_watermark: self.high_watermark,
            log_start: self.log_start,
            has_records: !self.records.is_empty(),
            has_error: self.error.is_some(),
            diverges: self.diverging.is_some(),
        }
    }
}

/// Answers for all partitions, or the first obstacle. `cold` holds what was read from disk for earlier obstacles.
pub fn collect(
    context: &ShardContext,
    wanted: &[Wanted],
    limits: Limits,
    cold: &[(usize, Piece)],
) -> Result<Collected, Obstacle> {
    let mut collected = Collected { answers: Vec::with_capacity(wanted.len()), bytes: 0, urgent: false };
    for (place, one) in wanted.iter().enumerate() {
        let room = Limits {
            max_bytes: limits.max_bytes.saturating_sub(collected.bytes),
            first_batch_whole: limits.first_batch_whole && collected.bytes == 0,
        };
        let read = cold.iter().find(|(at, _)| *at == place).map(|(_, piece)| piece.clone());
        let answer = match find(context, one) {
            Err((code, topic)) => PartitionAnswer::error(code, topic),
            Ok(partition) => answer(&partition, one, room, (place, read))?,
        };
        collected.bytes += answer.bytes();
        collected.urgent |= answer.error.is_some() || answer.diverging.is_some();
        collected.answers.push(answer);
    }
    Ok(collected)
}

/// The partition that is asked for, if this shard leads it.
pub fn find(context: &ShardContext, wanted: &Wanted) -> Result<Rc<Partition>, (ResponseError, Option<Arc<str>>)> {
    match &wanted.topic {
        TopicKey::Name(name) => leaders::by_name(context, name, wanted.partition)
            .map_err(|code| (code, context.image().topic(name).map(|topic| Arc::clone(&topic.name)))),
        TopicKey::Id(id) => leaders::by_id(context, *id, wanted.partition)
            .map_err(|code| (code, context.image().topic_by_id(*id).map(|topic| Arc::clone(&topic.name)))),
    }
}

fn answer(
    partition: &Rc<Partition>,
    wanted: &Wanted,
    room: Limits,
    (place, cold): (usize, Option<Piece>),
) -> Result<PartitionAnswer, Obstacle> {
    let failed = |code| PartitionAnswer::error(code, Some(Arc::clone(&partition.topic)));
    if let Err(code) = leaders::check_epoch(wanted.current_leader_epoch, partition.epoch()) {
        return Ok(failed(code));
    }
    let ends = partition.ends();
    let core = partition.core();
    if core.failure().is_some() {
        return Ok(failed(ResponseError::KafkaStorageError));
    }
    let from = Offset(wanted.fetch_offset);
    let mut answer = PartitionAnswer {
        error: None,
        topic: None,
        high_watermark: ends.high_watermark,
        log_start: ends.log_start,
        diverging: None,
        records: Pieces::new(),
    };
    if wanted.last_fetched_epoch >= 0 {
        let asked = LeaderEpoch(wanted.last_fetched_epoch);
        match core.epochs().end_of(asked, partition.epoch(), ends.log_end) {
            None => return Ok(failed(ResponseError::OffsetOutOfRange)),
            Some(end) if end.epoch < asked || end.end < from => {
                answer.diverging = Some((end.epoch, end.end));
                return Ok(answer);
            }
            Some(_) => {}
        }
    }
    if core.check_range(from, ends.log_end).is_err() {
        return Ok(failed(ResponseError::OffsetOutOfRange));
    }
    if let Some(piece) = cold {
        answer.records.push(piece);
        return Ok(answer);
    }
    let max_bytes = room.max_bytes.min(usize::try_from(wanted.max_bytes).unwrap_or(0));
    if max_bytes == 0 && !room.first_batch_whole {
        return Ok(answer);
    }
    let interval = partition.config().index_interval_bytes;
    match locate(&core, partition.files(), (from, ends.high_watermark), interval) {
        Ok(Located::AtEnd) => {}
        Ok(Located::Missing(missing)) => {
            drop(core);
            return Err(Obstacle::Lookup(Rc::clone(partition), missing));
        }
        Ok(Located::At(span)) => {
            drop(core);
            match slice(partition, &span, max_bytes, room.first_batch_whole, place) {
                Ok(piece) => answer.records.extend(piece),
                Err(SliceError::Cold(obstacle)) => return Err(obstacle),
                Err(SliceError::Failed) => return Ok(failed(ResponseError::KafkaStorageError)),
            }
        }
        Err(e) => {
            error!("{}-{}: reading at offset {from}: {e}", partition.topic, partition.index());
            return Ok(failed(ResponseError::KafkaStorageError));
        }
    }
    Ok(answer)
}

enum SliceError {
    Cold(Obstacle),
    Failed,
}

fn slice(
    partition: &Partition,
    span: &ReadSpan,
    max_bytes: usize,
    first_batch_whole: bool,
    place: usize,
) -> Result<Option<Piece>, SliceError> {
    let available = (span.end - span.position) as usize;
    let least = if first_batch_whole { span.first_batch_bytes as usize } else { 0 };
    let length = max_bytes.max(least).min(available);
    // Nothing rather than a part of the first batch: with records but no whole batch, Kafka's consumer fails.
    if length < span.first_batch_bytes as usize {
        return Ok(None);
    }
    let file = partition.files().file(&span.segment).map_err(|e| {
        error!("{}-{}: opening a segment: {e}", partition.topic, partition.index());
        SliceError::Failed
    })?;
    let position = u64::from(span.position);
    if !partition.is_hot(span) && !file.is_cached(position, length) {
        let length = length.min(COLD_READ_BYTES_MAX.max(span.first_batch_bytes as usize));
        return Err(SliceError::Cold(Obstacle::Records { place, file, position, length }));
    }
    Ok(Some(Piece::File(FileSlice { file, position, length })))
}

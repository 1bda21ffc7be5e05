//! Collecting the answers of one fetch: what each partition says now, with its records as slices of files.

use super::session::{Told, TopicKey, Wanted};
use super::slice::{Next, Room, Used, next_records};
use crate::api::context::ShardContext;
use crate::api::leaders;
use crate::base::ids::{LeaderEpoch, Offset};
use crate::log::file::SegmentFile;
use crate::log::paths;
use crate::log::read::{Located, Missing, ReadError, locate};
use crate::log::segment::Segment;
use crate::partition::leader::Partition;
use crate::wire::encode::Pieces;
use crate::wire::reply::Piece;
use kafka_protocol::ResponseError;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use tracing::error;

/// Obstacles that are removed together, side by side.
const OBSTACLES_MAX: usize = 64;

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
#[derive(Default)]
pub struct Collected {
    pub answers: Vec<PartitionAnswer>,
    pub bytes: usize,
    /// Something must be told without waiting for more bytes: an error, or records that a bound of ours cut short, so
    /// that no append would bring more of them.
    pub urgent: bool,
    /// What must come from disk before some partitions can answer more than nothing.
    pub obstacles: Vec<Obstacle>,
    used: Used,
}

/// What must be read from disk before a partition can answer; `place` is its place in the request.
pub enum Obstacle {
    Lookup {
        place: usize,
        partition: Rc<Partition>,
        missing: Missing,
    },
    /// `end`: what may be read of the file.
    Records {
        place: usize,
        partition: Rc<Partition>,
        segment: Rc<Segment>,
        file: Rc<SegmentFile>,
        range: Range<u64>,
        end: u64,
    },
}

/// What earlier rounds of the same fetch brought from the disk.
#[derive(Default)]
pub struct Brought {
    /// Cold records: for which place and partition. One a fetch: the others get their turn with the next one.
    pub cold: Option<(usize, Rc<Partition>, Piece)>,
    /// Places whose files could not be read.
    pub failed: Vec<usize>,
}

const UNKNOWN: Offset = Offset(-1);

impl PartitionAnswer {
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

/// Answers for all partitions, as far as they can be given without waiting for a disk.
pub fn collect(context: &ShardContext, wanted: &[Wanted], max_bytes: usize, brought: &Brought) -> Collected {
    let mut collected = Collected { answers: Vec::with_capacity(wanted.len()), ..Collected::default() };
    collected.urgent = brought.cold.is_some();
    for (place, one) in wanted.iter().enumerate() {
        let answer = match find(context, one) {
            Err((code, topic)) => PartitionAnswer::error(code, topic),
            Ok(partition) => collected.answer_of(&partition, one, max_bytes, (place, brought)),
        };
        collected.used.note(&answer.records);
        collected.bytes += answer.bytes();
        collected.urgent |= answer.error.is_some() || answer.diverging.is_some();
        collected.answers.push(answer);
    }
    collected
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

impl Collected {
    fn answer_of(
        &mut self,
        partition: &Rc<Partition>,
        wanted: &Wanted,
        max_bytes: usize,
        (place, brought): (usize, &Brought),
    ) -> PartitionAnswer {
        let failed = |code| PartitionAnswer::error(code, Some(Arc::clone(&partition.topic)));
        let mut answer = match state_of(partition, wanted) {
            Ok(answer) if answer.diverging.is_some() => return answer,
            Ok(answer) => answer,
            Err(code) => return failed(code),
        };
        if brought.failed.contains(&place) {
            return failed(ResponseError::KafkaStorageError);
        }
        if let Some((at, whose, piece)) = &brought.cold
            && *at == place
            && Rc::ptr_eq(whose, partition)
        {
            answer.records.push(piece.clone());
            return answer;
        }
        let room = Room {
            max_bytes: max_bytes.saturating_sub(self.bytes).min(usize::try_from(wanted.max_bytes).unwrap_or(0)),
            is_first: self.bytes == 0,
            used: self.used,
        };
        match next(partition, Offset(wanted.fetch_offset), answer.high_watermark, room) {
            Ok(Next::Nothing) => {}
            Ok(Next::Records { piece, is_cut }) => {
                answer.records.push(piece);
                self.urgent |= is_cut;
            }
            Ok(Next::OtherFetch) => self.urgent = true,
            Ok(Next::Cold { segment, file, position, length, end }) => {
                let partition = Rc::clone(partition);
                let range = position..position + length as u64;
                self.meet(Obstacle::Records { place, partition, segment, file, range, end }, brought);
            }
            Ok(Next::Missing(missing)) => {
                self.meet(Obstacle::Lookup { place, partition: Rc::clone(partition), missing }, brought);
            }
            Err(error) => {
                partition.read_failed(&error);
                return failed(code_of(partition, wanted.fetch_offset, &error));
            }
        }
        answer
    }

    fn meet(&mut self, obstacle: Obstacle, brought: &Brought) {
        let is_records = |obstacle: &Obstacle| matches!(obstacle, Obstacle::Records { .. });
        let others_turn = is_records(&obstacle) && (brought.cold.is_some() || self.obstacles.iter().any(is_records));
        if !others_turn && self.obstacles.len() < OBSTACLES_MAX {
            self.obstacles.push(obstacle);
        }
    }
}

/// What the partition says besides records, or why it has nothing to say.
fn state_of(partition: &Partition, wanted: &Wanted) -> Result<PartitionAnswer, ResponseError> {
    leaders::check_epoch(wanted.current_leader_epoch, partition.epoch())?;
    let ends = partition.ends();
    let core = partition.core();
    if core.failure().is_some() {
        return Err(ResponseError::KafkaStorageError);
    }
    let from = Offset(wanted.fetch_offset);
    let mut diverging = None;
    if wanted.last_fetched_epoch >= 0 {
        let asked = LeaderEpoch(wanted.last_fetched_epoch);
        let end = core.epochs().end_of(asked, partition.epoch(), ends.log_end);
        let end = end.ok_or(ResponseError::OffsetOutOfRange)?;
        if end.epoch < asked || end.end < from {
            diverging = Some((end.epoch, end.end));
        }
    }
    if diverging.is_none() && core.check_range(from, ends.log_end).is_err() {
        return Err(ResponseError::OffsetOutOfRange);
    }
    Ok(PartitionAnswer {
        error: None,
        topic: None,
        high_watermark: ends.high_watermark,
        log_start: ends.log_start,
        diverging,
        records: Pieces::new(),
    })
}

/// Bytes that are no batch are the records' trouble, not the disk's: the rest of the partition is served, and a consumer
/// that waits would wait for ever (Kafka: CorruptRecordException).
fn code_of(partition: &Rc<Partition>, from: i64, error: &ReadError) -> ResponseError {
    match error {
        ReadError::KnownCorrupt { .. } => ResponseError::CorruptMessage,
        // It is told of when the segment has been looked through.
        ReadError::Corrupt { .. } => ResponseError::CorruptMessage,
        ReadError::Io { .. } => {
            error!("{}-{}: reading at offset {from}: {error}", partition.topic, partition.index());
            ResponseError::KafkaStorageError
        }
    }
}

/// The records that come next, or what stands in their way.
fn next(partition: &Rc<Partition>, from: Offset, limit: Offset, room: Room) -> Result<Next, ReadError> {
    if room.max_bytes == 0 && !room.is_first {
        return Ok(Next::Nothing);
    }
    let interval = partition.config().index_interval_bytes;
    match locate(&partition.core(), partition.files(), (from, limit), interval)? {
        Located::AtEnd => Ok(Next::Nothing),
        Located::Missing(missing) => Ok(Next::Missing(missing)),
        Located::At(span) => next_records(partition, &span, room)
            .map_err(|source| ReadError::Io { path: span.segment.path(paths::LOG), source }),
    }
}

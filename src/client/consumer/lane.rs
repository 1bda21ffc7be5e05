//! One partition's reading position, and which records of a fetched batch are shown.

use super::Assignment;
use crate::client::offsets::Isolation;
use crate::record::batch::{BatchHeader, walk};
use crate::record::records::{Record, Records};
use std::collections::HashSet;
use std::io;

/// An aborted transaction as a fetch answer lists it (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    pub producer_id: i64,
    pub first_offset: i64,
}

#[derive(Debug)]
pub struct Lane {
    pub partition: i32,
    /// The next offset to show.
    pub position: i64,
    pub to_offset: Option<i64>,
}

/// How reading a fetched chunk ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    More,
    /// The sink wants no more.
    Stopped,
}

#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    #[error("{reason}")]
    Corrupt { offset: i64, reason: String },
    #[error(transparent)]
    Output(#[from] io::Error),
}

impl Lane {
    pub fn new(assignment: Assignment) -> Lane {
        Lane { partition: assignment.partition, position: assignment.from_offset, to_offset: assignment.to_offset }
    }

    pub fn is_done(&self) -> bool {
        self.to_offset.is_some_and(|to| self.position >= to)
    }

    /// Shows the records of the whole batches in `bytes` that lie at or behind the position; a batch may begin before
    /// it, because brokers answer with whole batches.
    pub fn read(
        &mut self,
        bytes: &[u8],
        aborted: &[Aborted],
        isolation: Isolation,
        show: &mut dyn FnMut(i32, &Record<'_>) -> io::Result<bool>,
    ) -> Result<Read, LaneError> {
        let mut filter = Filter::new(aborted, isolation);
        for walked in walk(bytes) {
            if self.is_done() {
                break;
            }
            let position = self.position;
            let corrupt = |reason: String| LaneError::Corrupt { offset: position, reason };
            let batch = walked.map_err(|e| corrupt(e.error.to_string()))?;
            if !batch.header.crc_matches(batch.bytes) {
                return Err(corrupt("its CRC does not match".to_owned()));
            }
            let visible = filter.admits(&batch.header, batch.bytes).map_err(corrupt)?;
            if visible && batch.header.next_offset().0 > self.position {
                let mut records = Records::new(&batch.header, batch.bytes).map_err(|e| corrupt(e.to_string()))?;
                while let Some(record) = records.next().map_err(|e| corrupt(e.to_string()))? {
                    if record.offset.0 < self.position {
                        continue;
                    }
                    if self.to_offset.is_some_and(|to| record.offset.0 >= to) {
                        break;
                    }
                    self.position = record.offset.0.saturating_add(1);
                    if !show(self.partition, &record)? {
                        return Ok(Read::Stopped);
                    }
                }
            }
            self.position = self.position.max(batch.header.next_offset().0);
        }
        Ok(Read::More)
    }
}

/// Leaves out control batches, and what aborted transactions wrote where only committed records are wanted.
struct Filter {
    isolation: Isolation,
    /// Not yet reached, the earliest last.
    ahead: Vec<Aborted>,
    open: HashSet<i64>,
}

impl Filter {
    fn new(aborted: &[Aborted], isolation: Isolation) -> Filter {
        let mut ahead = aborted.to_vec();
        ahead.sort_by_key(|a| std::cmp::Reverse(a.first_offset));
        Filter { isolation, ahead, open: HashSet::new() }
    }

    fn admits(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<bool, String> {
        if self.isolation == Isolation::ReadCommitted && header.has_producer_id() {
            while let Some(next) = self.ahead.pop_if(|next| next.first_offset <= header.last_offset().0) {
                self.open.insert(next.producer_id);
            }
            if header.is_control() {
                if is_abort_marker(header, batch)? {
                    self.open.remove(&header.producer_id);
                }
            } else if header.is_transactional() && self.open.contains(&header.producer_id) {
                return Ok(false);
            }
        }
        Ok(!header.is_control())
    }
}

/// A control record's key: version i16, type i16, where 0 is abort and 1 commit.
fn is_abort_marker(header: &BatchHeader, batch: &[u8]) -> Result<bool, String> {
    let mut records = Records::new(header, batch).map_err(|e| e.to_string())?;
    let record = records.next().map_err(|e| e.to_string())?;
    let kind = record.and_then(|r| r.key).and_then(|key| key.get(2..4)).map(<[u8]>::to_vec);
    Ok(kind.as_deref() == Some(&[0, 0]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{LeaderEpoch, Offset};
    use crate::record::batch::Codec;
    use crate::record::builder::BatchBuilder;
    use crate::record::compression::Compression;

    fn batch(base: i64, values: &[&str], producer: Option<i64>) -> Vec<u8> {
        let mut b = BatchBuilder::new(Compression::of(Codec::Lz4)).placed(Offset(base), LeaderEpoch(0));
        if let Some(id) = producer {
            b = b.producer(id, 0, 0).transactional();
        }
        values.iter().for_each(|v| b.push(1, None, Some(v.as_bytes()), &[]).expect("small"));
        b.build().expect("small").to_vec()
    }

    fn marker(base: i64, producer: i64, kind: u8) -> Vec<u8> {
        let mut b = BatchBuilder::new(Compression::NONE)
            .placed(Offset(base), LeaderEpoch(0))
            .producer(producer, 0, -1)
            .transactional()
            .control();
        b.push(1, Some(&[0, 0, 0, kind]), Some(&[0; 6]), &[]).expect("small");
        b.build().expect("small").to_vec()
    }

    fn lane(from_offset: i64, to_offset: Option<i64>) -> Lane {
        Lane::new(Assignment { partition: 0, from_offset, to_offset })
    }

    fn shown(lane: &mut Lane, bytes: &[u8], aborted: &[Aborted], isolation: Isolation) -> Vec<String> {
        let mut seen = Vec::new();
        lane.read(bytes, aborted, isolation, &mut |_, r| {
            seen.push(String::from_utf8_lossy(r.value.unwrap_or_default()).into_owned());
            Ok(true)
        })
        .expect("readable");
        seen
    }

    #[test]
    fn a_batch_that_begins_early_shows_only_what_was_asked_for() {
        let bytes = batch(10, &["a", "b", "c", "d"], None);
        let mut lane = lane(12, Some(13));
        assert_eq!(shown(&mut lane, &bytes, &[], Isolation::ReadUncommitted), ["c"]);
        assert!(lane.is_done());
    }

    #[test]
    fn control_batches_move_the_position_and_are_never_shown() {
        let bytes = [batch(0, &["a"], Some(7)), marker(1, 7, 1)].concat();
        let mut lane = lane(0, Some(2));
        assert_eq!(shown(&mut lane, &bytes, &[], Isolation::ReadUncommitted), ["a"]);
        assert!(lane.is_done(), "the end is reached although the last offset is a marker");
    }

    #[test]
    fn committed_reads_leave_out_aborted_transactions_only() {
        let bytes = [
            batch(0, &["gone"], Some(7)),
            batch(1, &["kept"], Some(8)),
            marker(2, 7, 0),
            batch(3, &["later"], Some(7)),
            marker(4, 7, 1),
        ]
        .concat();
        let aborted = [Aborted { producer_id: 7, first_offset: 0 }];
        assert_eq!(shown(&mut lane(0, None), &bytes, &aborted, Isolation::ReadCommitted), ["kept", "later"]);
        assert_eq!(shown(&mut lane(0, None), &bytes, &aborted, Isolation::ReadUncommitted), ["gone", "kept", "later"]);
    }

    #[test]
    fn a_flipped_bit_is_reported_with_its_offset() {
        let mut bytes = batch(5, &["abc"], None);
        *bytes.last_mut().expect("not empty") ^= 1;
        let result = lane(5, None).read(&bytes, &[], Isolation::ReadUncommitted, &mut |_, _| Ok(true));
        assert!(matches!(result, Err(LaneError::Corrupt { offset: 5, .. })));
    }
}

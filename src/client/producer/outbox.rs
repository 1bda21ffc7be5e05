//! What to send when: the producer's decisions, without clock and sockets.
//!
//! Records gather in one open batch per partition; batches leave in order. An idempotent producer may have several of a
//! partition's batches under way, because the broker refuses any that would come out of turn; another has one. When one
//! must be sent again, its partition *rests* until all that are under way have come back, and then sends again in order.

use super::NewRecord;
use super::batch::{Batch, Identity, OpenBatch};
use crate::client::error::{code_hint, code_name};
use crate::record::batch::increment_sequence;
use crate::record::builder::BuildError;
use crate::record::compression::Compression;
use kafka_protocol::error::ResponseError;
use std::collections::VecDeque;

#[derive(Clone, Debug)]
pub struct Rules {
    pub compression: Compression,
    pub batch_bytes: usize,
    pub linger_ms: i64,
    pub retry_backoff_ms: i64,
    /// From a batch's first record to giving up.
    pub delivery_timeout_ms: i64,
    pub idempotent: bool,
    pub in_flight_max: usize,
}

/// What came of a batch that was sent.
#[derive(Clone, Debug)]
pub enum Verdict {
    Stored {
        base_offset: Option<i64>,
    },
    Refused {
        code: ResponseError,
        message: Option<String>,
        refused_records: Vec<i32>,
    },
    /// Nobody knows whether it was stored: the connection broke or no answer came.
    NoAnswer {
        reason: String,
    },
}

/// What the driver must know about a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Delivered {
        partition: i32,
        records: usize,
        payload_bytes: usize,
        base_offset: Option<i64>,
    },
    /// These lines will never be stored.
    Lost {
        partition: i32,
        lines: Vec<u64>,
        reason: String,
        hint: Option<&'static str>,
    },
    /// It will be sent again; the leader may have moved.
    Again {
        partition: i32,
        refresh_metadata: bool,
        reason: String,
    },
    /// Time is up: stop. What is left is unconfirmed.
    GaveUp {
        partition: i32,
        reason: String,
    },
}

#[derive(Debug)]
pub struct Outbox {
    rules: Rules,
    lanes: Vec<Lane>,
    buffered_bytes: usize,
    buffered_records: usize,
    /// The input has ended: nothing lingers any more.
    closing: bool,
}

/// One partition's way out.
#[derive(Debug, Default)]
struct Lane {
    open: Option<OpenBatch>,
    ready: VecDeque<Batch>,
    in_flight: usize,
    identity: Option<Identity>,
    next_sequence: i32,
    resting: bool,
    /// A sequence was spent on records that will not come, from this input line on: what stands before it still goes out
    /// under the old identity (the broker may have it already), what stands behind needs a new one.
    renew_from: Option<u64>,
    not_before_ms: i64,
}

/// Identities that one batch may go through before its refusal is final.
const IDENTITY_CHANGES_MAX: u32 = 3;

impl Outbox {
    pub fn new(rules: Rules, partitions: usize) -> Outbox {
        let mut outbox = Outbox { rules, lanes: Vec::new(), buffered_bytes: 0, buffered_records: 0, closing: false };
        outbox.grow(partitions);
        outbox
    }

    /// The topic has more partitions than before.
    pub fn grow(&mut self, partitions: usize) {
        if partitions > self.lanes.len() {
            self.lanes.resize_with(partitions, Lane::default);
        }
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    pub fn is_empty(&self) -> bool {
        self.buffered_records == 0
    }

    /// Bytes of keys and values that are neither acknowledged nor lost.
    pub fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    pub fn buffered_records(&self) -> usize {
        self.buffered_records
    }

    /// Takes a record for a partition that exists.
    pub fn push(&mut self, partition: i32, record: &NewRecord, now_ms: i64) -> Result<(), BuildError> {
        let rules = &self.rules;
        let lane = lane(&mut self.lanes, partition);
        let would_be = |open: &OpenBatch| open.encoded_bytes() + record.encoded_bytes_max();
        if lane.open.as_ref().is_some_and(|open| would_be(open) > rules.batch_bytes) {
            lane.seal(partition)?;
        }
        let open = lane.open.get_or_insert_with(|| OpenBatch::new(rules.compression, now_ms));
        open.push(record)?;
        self.buffered_bytes += record.payload_bytes();
        self.buffered_records += 1;
        Ok(())
    }

    /// The input has ended: everything may leave at once.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// The batches, one per partition, that may leave now to a broker that leads the partitions `led`, at most
    /// `bytes_max` of them (but at least one).
    pub fn take(&mut self, now_ms: i64, led: impl Fn(i32) -> bool, bytes_max: usize) -> Result<Vec<Batch>, BuildError> {
        let mut taken: Vec<Batch> = Vec::new();
        let mut bytes = 0;
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let partition = index as i32;
            if !led(partition) || !lane.may_send(&self.rules, now_ms) {
                continue;
            }
            if lane.ready.is_empty() && lane.open_is_due(&self.rules, self.closing, now_ms) {
                lane.seal(partition)?;
            }
            let Some(next) = lane.ready.front().filter(|next| lane.may_leave(next)) else { continue };
            if !taken.is_empty() && bytes + next.bytes.len() > bytes_max {
                break;
            }
            let batch = lane.send_next().expect("invariant: seen above");
            bytes += batch.bytes.len();
            taken.push(batch);
        }
        Ok(taken)
    }

    /// Gives the verdict on a batch that `take` gave out.
    pub fn settle(&mut self, batch: Batch, verdict: Verdict, now_ms: i64) -> Vec<Effect> {
        let partition = batch.partition;
        lane(&mut self.lanes, partition).in_flight -= 1;
        match verdict {
            Verdict::Stored { base_offset } => vec![self.delivered(batch, base_offset)],
            Verdict::NoAnswer { reason } => vec![self.again(batch, now_ms, true, reason)],
            Verdict::Refused { code, message, refused_records } => {
                let reason = match message.filter(|m| !m.is_empty()) {
                    Some(message) => format!("{}: {message}", code_name(code)),
                    None => code_name(code),
                };
                self.refused(batch, code, reason, &refused_records, now_ms)
            }
        }
    }

    /// Whether partitions wait for a producer id; none are sent from before they have one.
    pub fn wants_identity(&self) -> bool {
        self.rules.idempotent && self.lanes.iter().any(|l| l.identity.is_none() && l.in_flight == 0 && l.has_records())
    }

    /// Gives all partitions that have none this identity; each counts its own sequence.
    pub fn give_identity(&mut self, identity: Identity) {
        if !self.rules.idempotent {
            return;
        }
        for lane in self.lanes.iter_mut().filter(|l| l.identity.is_none()) {
            lane.identity = Some(identity);
            lane.next_sequence = 0;
        }
    }

    /// When something will be due that is not yet, if anything: a lingering batch, the end of a back-off.
    pub fn due_ms(&self, now_ms: i64) -> Option<i64> {
        let due = self.lanes.iter().filter(|l| l.has_records()).map(|lane| match &lane.open {
            Some(open) if lane.ready.is_empty() && !self.closing => {
                lane.not_before_ms.max(open.created_ms() + self.rules.linger_ms)
            }
            _ => lane.not_before_ms,
        });
        due.filter(|at| *at > now_ms).min()
    }

    /// A batch of this partition that has waited too long without being under way.
    pub fn overdue(&self, now_ms: i64) -> Option<i32> {
        let late =
            |lane: &Lane| lane.ready.front().is_some_and(|b| now_ms - b.created_ms >= self.rules.delivery_timeout_ms);
        self.lanes.iter().position(late).map(|index| index as i32)
    }

    fn delivered(&mut self, batch: Batch, base_offset: Option<i64>) -> Effect {
        self.release(batch.payload_bytes, batch.lines.len());
        Effect::Delivered {
            partition: batch.partition,
            records: batch.lines.len(),
            payload_bytes: batch.payload_bytes,
            base_offset,
        }
    }

    fn refused(
        &mut self,
        batch: Batch,
        code: ResponseError,
        reason: String,
        refused_records: &[i32],
        now_ms: i64,
    ) -> Vec<Effect> {
        use ResponseError as E;
        let partition = batch.partition;
        let waits_for_another = lane(&mut self.lanes, partition).has_one_before(&batch);
        match code {
            // The broker has it already: the answer to an earlier attempt was lost.
            E::DuplicateSequenceNumber => vec![self.delivered(batch, None)],
            // It came out of turn because one before it did not get through.
            E::OutOfOrderSequenceNumber if waits_for_another => vec![self.again(batch, now_ms, false, reason)],
            // The broker does not know our sequence (any more), and did not store this: start a new one.
            E::OutOfOrderSequenceNumber | E::UnknownProducerId | E::InvalidProducerEpoch
                if self.rules.idempotent && batch.identity_changes < IDENTITY_CHANGES_MAX =>
            {
                let batch = Batch { identity_changes: batch.identity_changes + 1, ..batch };
                lane(&mut self.lanes, partition).renew_identity_from(batch.first_line());
                vec![self.again(batch, now_ms, false, reason)]
            }
            E::MessageTooLarge | E::RecordListTooLarge if batch.lines.len() > 1 => {
                match batch.split(self.rules.compression) {
                    Ok(parts) => {
                        parts.into_iter().for_each(|part| self.requeue(part));
                        vec![Effect::Again { partition, refresh_metadata: false, reason }]
                    }
                    Err(error) => vec![self.lost(batch, error.to_string(), None)],
                }
            }
            E::InvalidRecord | E::InvalidTimestamp if !refused_records.is_empty() => {
                self.without_refused(batch, refused_records, code, reason)
            }
            _ if code.is_retriable() => vec![self.again(batch, now_ms, true, reason)],
            _ => vec![self.lost(batch, reason, code_hint(code))],
        }
    }

    /// Kafka refuses a batch for single records in it and names them: the others are sent again without those.
    fn without_refused(&mut self, batch: Batch, refused: &[i32], code: ResponseError, reason: String) -> Vec<Effect> {
        let partition = batch.partition;
        match batch.without(self.rules.compression, refused) {
            Ok((Some(rest), lines)) if !lines.is_empty() => {
                self.release(batch.payload_bytes - rest.payload_bytes, lines.len());
                self.requeue(rest);
                self.spend_sequence(partition, batch.first_line());
                vec![Effect::Lost { partition, lines, reason, hint: code_hint(code) }]
            }
            _ => vec![self.lost(batch, reason, code_hint(code))],
        }
    }

    fn again(&mut self, batch: Batch, now_ms: i64, refresh_metadata: bool, reason: String) -> Effect {
        let partition = batch.partition;
        if now_ms - batch.created_ms >= self.rules.delivery_timeout_ms {
            let attempts = batch.attempts;
            self.requeue(batch);
            let limit = self.rules.delivery_timeout_ms;
            return Effect::GaveUp { partition, reason: format!("{reason} ({attempts} attempts in {limit} ms)") };
        }
        let backoff = self.rules.retry_backoff_ms << batch.attempts.min(4);
        let lane = lane(&mut self.lanes, partition);
        lane.not_before_ms = lane.not_before_ms.max(now_ms + backoff);
        self.requeue(batch);
        Effect::Again { partition, refresh_metadata, reason }
    }

    fn lost(&mut self, batch: Batch, reason: String, hint: Option<&'static str>) -> Effect {
        self.release(batch.payload_bytes, batch.lines.len());
        self.spend_sequence(batch.partition, batch.first_line());
        Effect::Lost { partition: batch.partition, lines: batch.lines, reason, hint }
    }

    /// Records from this line on were given up: the broker will never see the sequence that follows.
    fn spend_sequence(&mut self, partition: i32, line: u64) {
        if self.rules.idempotent {
            let lane = lane(&mut self.lanes, partition);
            lane.resting = true;
            lane.renew_identity_from(line);
        }
    }

    fn requeue(&mut self, batch: Batch) {
        let lane = lane(&mut self.lanes, batch.partition);
        lane.resting = true;
        let at = lane.ready.partition_point(|other| other.first_line() < batch.first_line());
        lane.ready.insert(at, batch);
    }

    fn release(&mut self, payload_bytes: usize, records: usize) {
        self.buffered_bytes -= payload_bytes;
        self.buffered_records -= records;
    }
}

impl Lane {
    fn has_records(&self) -> bool {
        self.open.is_some() || !self.ready.is_empty()
    }

    fn seal(&mut self, partition: i32) -> Result<(), BuildError> {
        if let Some(open) = self.open.take() {
            self.ready.push_back(open.seal(partition)?);
        }
        Ok(())
    }

    fn open_is_due(&self, rules: &Rules, closing: bool, now_ms: i64) -> bool {
        self.open.as_ref().is_some_and(|open| closing || now_ms - open.created_ms() >= rules.linger_ms)
    }

    fn may_send(&mut self, rules: &Rules, now_ms: i64) -> bool {
        if self.in_flight == 0 {
            self.resting = false;
            let has_to_go_first = |from: u64| self.ready.front().is_some_and(|b| b.stamped && b.first_line() < from);
            if self.renew_from.is_some_and(|from| !has_to_go_first(from)) {
                self.renew_from = None;
                self.identity = None;
                self.ready.iter_mut().for_each(|batch| batch.stamped = false);
            }
        }
        let in_flight_max = if rules.idempotent { rules.in_flight_max } else { 1 };
        !self.resting
            && self.in_flight < in_flight_max
            && now_ms >= self.not_before_ms
            && (!rules.idempotent || self.identity.is_some())
    }

    /// Whether a batch that should have been stored before this one was not.
    fn has_one_before(&self, batch: &Batch) -> bool {
        let line = batch.first_line();
        self.ready.front().is_some_and(|b| b.first_line() < line) || self.renew_from.is_some_and(|from| from <= line)
    }

    fn may_leave(&self, next: &Batch) -> bool {
        self.renew_from.is_none_or(|from| next.first_line() < from)
    }

    fn renew_identity_from(&mut self, line: u64) {
        self.renew_from = Some(self.renew_from.map_or(line, |from| from.min(line)));
    }

    fn send_next(&mut self) -> Option<Batch> {
        let mut batch = self.ready.pop_front()?;
        if let Some(identity) = self.identity.filter(|_| !batch.stamped) {
            batch.stamp(identity, self.next_sequence);
            self.next_sequence = increment_sequence(self.next_sequence, batch.records());
        }
        // What is sent again goes alone: behind it, others would push it out of the five batches that the broker
        // remembers, and it would no longer be recognised if it had been stored the first time.
        self.resting |= batch.attempts > 0;
        batch.attempts += 1;
        self.in_flight += 1;
        Some(batch)
    }
}

fn lane(lanes: &mut [Lane], partition: i32) -> &mut Lane {
    usize::try_from(partition).ok().and_then(|index| lanes.get_mut(index)).expect("invariant: the partition exists")
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;

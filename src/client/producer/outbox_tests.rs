//! Stories of the outbox: what it sends after what verdict.

use super::super::batch::Identity;
use super::*;
use crate::record::batch::{BatchHeader, Codec};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn rules(idempotent: bool) -> Rules {
    Rules {
        compression: Compression::of(Codec::None),
        batch_bytes: 200,
        linger_ms: 5,
        retry_backoff_ms: 100,
        delivery_timeout_ms: 10_000,
        idempotent,
        in_flight_max: 5,
    }
}

fn record(line: u64) -> NewRecord {
    NewRecord {
        key: None,
        value: Some(Bytes::from(format!("value of line {line:020}"))),
        headers: Vec::new(),
        timestamp_ms: 1,
        partition: None,
        line,
    }
}

/// An outbox of one partition with `n` records and an identity.
fn filled(idempotent: bool, n: u64) -> Outbox {
    let mut outbox = Outbox::new(rules(idempotent), 1);
    (1..=n).for_each(|line| outbox.push(0, &record(line), 0).expect("a small record"));
    outbox.close();
    outbox.give_identity(Identity { producer_id: 9, epoch: 0 });
    outbox
}

fn take_one(outbox: &mut Outbox, now_ms: i64) -> Option<Batch> {
    outbox.take(now_ms, |_| true, usize::MAX).expect("small batches").pop()
}

fn sequence(batch: &Batch) -> i32 {
    BatchHeader::parse(&batch.bytes).expect("a batch").base_sequence
}

fn refused(code: ResponseError) -> Verdict {
    Verdict::Refused { code, message: None, refused_records: Vec::new() }
}

const STORED: Verdict = Verdict::Stored { base_offset: Some(0) };

#[test]
fn a_batch_waits_for_company_until_it_has_lingered() {
    let mut outbox = Outbox::new(rules(true), 1);
    outbox.give_identity(Identity { producer_id: 9, epoch: 0 });
    outbox.push(0, &record(1), 100).expect("a small record");
    assert!(take_one(&mut outbox, 104).is_none());
    assert_eq!(outbox.due_ms(104), Some(105));
    assert_eq!(take_one(&mut outbox, 105).map(|b| b.lines), Some(vec![1]));
}

#[test]
fn after_a_retriable_refusal_the_rest_comes_back_and_leaves_again_in_order() {
    let mut outbox = filled(true, 6);
    let first = take_one(&mut outbox, 0).expect("a full batch");
    let second = take_one(&mut outbox, 0).expect("another behind it");
    assert_eq!((sequence(&first), sequence(&second)), (0, first.records()));
    outbox.settle(first, refused(ResponseError::NotLeaderOrFollower), 0);
    assert!(take_one(&mut outbox, 500).is_none(), "it rests while the second is under way");
    let effects = outbox.settle(second, refused(ResponseError::OutOfOrderSequenceNumber), 0);
    assert!(matches!(effects.as_slice(), [Effect::Again { refresh_metadata: false, .. }]));
    assert!(take_one(&mut outbox, 50).is_none(), "the back-off is not over");
    let again = take_one(&mut outbox, 500).expect("the first again");
    assert_eq!((again.first_line(), sequence(&again)), (1, 0), "with the sequence that it had");
}

#[test]
fn without_idempotence_one_batch_of_a_partition_is_under_way() {
    let mut outbox = filled(false, 6);
    let first = take_one(&mut outbox, 0).expect("a full batch");
    assert_eq!(sequence(&first), -1);
    assert!(take_one(&mut outbox, 0).is_none());
    outbox.settle(first, STORED, 0);
    assert!(take_one(&mut outbox, 0).is_some());
}

#[test]
fn a_duplicate_counts_as_delivered() {
    let mut outbox = filled(true, 1);
    let batch = take_one(&mut outbox, 0).expect("a batch");
    outbox.settle(batch, Verdict::NoAnswer { reason: "cut".to_owned() }, 0);
    let again = take_one(&mut outbox, 1000).expect("again");
    let effects = outbox.settle(again, refused(ResponseError::DuplicateSequenceNumber), 1000);
    assert!(matches!(effects.as_slice(), [Effect::Delivered { records: 1, .. }]));
    assert!(outbox.is_empty());
}

#[test]
fn a_batch_that_is_too_large_is_halved_until_only_the_culprit_is_lost() {
    let mut outbox = filled(true, 4);
    let mut lost = Vec::new();
    let mut stored = Vec::new();
    for now_ms in (0..100_000).step_by(1000) {
        if outbox.wants_identity() {
            outbox.give_identity(Identity { producer_id: 10 + now_ms, epoch: 0 });
        }
        let Some(batch) = take_one(&mut outbox, now_ms) else { continue };
        let verdict = if batch.lines.contains(&2) { refused(ResponseError::MessageTooLarge) } else { STORED };
        if matches!(verdict, Verdict::Stored { .. }) {
            stored.extend(batch.lines.clone());
        }
        for effect in outbox.settle(batch, verdict, 0) {
            if let Effect::Lost { lines, .. } = effect {
                lost.extend(lines);
            }
        }
    }
    assert_eq!((lost, stored), (vec![2], vec![1, 3, 4]));
    assert!(outbox.is_empty());
    assert_eq!(outbox.buffered_bytes(), 0);
}

#[test]
fn records_that_the_broker_names_are_lost_alone() {
    let mut outbox = filled(true, 3);
    let batch = take_one(&mut outbox, 0).expect("a batch");
    let size = batch.lines.len() as u64;
    let verdict = Verdict::Refused { code: ResponseError::InvalidTimestamp, message: None, refused_records: vec![0] };
    let effects = outbox.settle(batch, verdict, 0);
    assert!(matches!(effects.as_slice(), [Effect::Lost { lines, .. }] if *lines == [1]));
    assert!(take_one(&mut outbox, 0).is_none(), "the sequence was spent: another identity first");
    assert!(outbox.wants_identity());
    outbox.give_identity(Identity { producer_id: 10, epoch: 0 });
    let rest = take_one(&mut outbox, 0).expect("the rest");
    assert_eq!((rest.lines.clone(), sequence(&rest)), ((2..=size).collect(), 0));
}

#[test]
fn it_gives_up_when_the_time_is_over() {
    let mut outbox = filled(true, 1);
    let batch = take_one(&mut outbox, 0).expect("a batch");
    let effects = outbox.settle(batch, refused(ResponseError::NotEnoughReplicas), 10_000);
    assert!(matches!(effects.as_slice(), [Effect::GaveUp { partition: 0, .. }]));
    assert_eq!(outbox.buffered_records(), 1, "and it is still there to be reported");
    assert_eq!(outbox.overdue(10_000), Some(0));
}

/// A broker's partition that obeys KIP-98: it takes a producer's next sequence only, knows its last batches, and loses
/// some answers.
#[derive(Default)]
struct ModelPartition {
    stored: Vec<u64>,
    producers: std::collections::HashMap<i64, Vec<(i32, i32)>>,
}

impl ModelPartition {
    fn append(&mut self, batch: &Batch) -> Verdict {
        let header = BatchHeader::parse(&batch.bytes).expect("a batch");
        let known = self.producers.entry(header.producer_id).or_default();
        let range = (header.base_sequence, header.last_sequence());
        if known.iter().rev().take(5).any(|k| *k == range) {
            return refused(ResponseError::DuplicateSequenceNumber);
        }
        let expected = known.last().map_or(0, |(_, last)| increment_sequence(*last, 1));
        if header.base_sequence != expected {
            return refused(ResponseError::OutOfOrderSequenceNumber);
        }
        known.push(range);
        self.stored.extend(&batch.lines);
        STORED
    }
}

proptest! {
    /// Whatever goes wrong on the way, every record is stored once and in order, except those reported lost.
    #[test]
    fn every_record_arrives_once_and_in_order(records in 1u64..60, mishaps in prop::collection::vec(0u8..8, 0..80)) {
        let mut outbox = filled(true, records);
        let mut broker = ModelPartition::default();
        let mut under_way: VecDeque<Batch> = VecDeque::new();
        let mut mishaps = mishaps.into_iter();
        let (mut lost, mut now_ms, mut next_id) = (BTreeSet::new(), 0, 100);
        for _ in 0..2000 {
            now_ms += 3;
            if outbox.wants_identity() {
                next_id += 1;
                outbox.give_identity(Identity { producer_id: next_id, epoch: 0 });
            }
            while under_way.len() < 5 {
                // The test's time runs far: what matters here is order, not the delivery time-out.
                let Some(mut batch) = take_one(&mut outbox, now_ms) else { break };
                batch.created_ms = now_ms;
                under_way.push_back(batch);
            }
            let Some(batch) = under_way.pop_front() else {
                if outbox.is_empty() { break }
                now_ms += 500;
                continue;
            };
            let verdict = match mishaps.next().unwrap_or(9) {
                0 => refused(ResponseError::NotLeaderOrFollower),
                1 => Verdict::NoAnswer { reason: "never arrived".to_owned() },
                2 => {
                    broker.append(&batch);
                    Verdict::NoAnswer { reason: "the answer was lost".to_owned() }
                }
                // A broker says "too large" before it looks at sequences; only of what it has not stored.
                3 if !broker.stored.contains(&batch.first_line()) => refused(ResponseError::MessageTooLarge),
                _ => broker.append(&batch),
            };
            for effect in outbox.settle(batch, verdict, now_ms) {
                match effect {
                    Effect::Lost { lines, .. } => lost.extend(lines),
                    Effect::GaveUp { .. } => prop_assert!(false, "gave up"),
                    Effect::Delivered { .. } | Effect::Again { .. } => {}
                }
            }
        }
        prop_assert!(outbox.is_empty());
        prop_assert_eq!(outbox.buffered_bytes(), 0);
        let expected: Vec<u64> = (1..=records).filter(|line| !lost.contains(line)).collect();
        prop_assert_eq!(broker.stored, expected);
    }
}

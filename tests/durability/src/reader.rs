//! Consumers: one that follows the end of the logs during the load, and the reading of a whole log afterwards.

use crate::content::{Found, identify};
use crate::world::{Load, Sickness, Slot, connect};
use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use corelog::client::connection::{Connection, decode_response};
use corelog::record::batch::walk;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The last version that names topics.
const VERSION: i16 = 12;
const PARTITION_BYTES: i32 = 2 << 20;
const ANSWER_BYTES: i32 = 8 << 20;
const STORAGE_ERROR: i16 = 56;
const NOT_LEADER: i16 = 6;
/// How long a partition may be recovered.
const RECOVERY_MAX: Duration = Duration::from_secs(30);

/// Follows all partitions of one shard.
pub struct Tail {
    port: u16,
    pub followed: Vec<Followed>,
}

/// One partition, as far as the consumer has seen it.
pub struct Followed {
    pub slot_index: u32,
    slot: Slot,
    pub next: i64,
    pub seen: BTreeMap<i64, Found>,
}

impl Tail {
    pub fn new(port: u16, slots: &[(u32, Slot)]) -> Tail {
        let followed = slots.iter().filter(|(_, slot)| slot.port == port).map(|(slot_index, slot)| Followed {
            slot_index: *slot_index,
            slot: slot.clone(),
            next: 0,
            seen: BTreeMap::new(),
        });
        Tail { port, followed: followed.collect() }
    }

    /// Reads until the connection ends, which is well only when the load is over; or once, when a disk fails from which records were just
    /// being sent.
    pub fn run(&mut self, load: &Load) -> Result<()> {
        let mut was_cut = false;
        loop {
            let ended = connect(self.port).and_then(|mut connection| self.follow(&mut connection, load));
            let is_sick = self.followed.iter().any(|one| load.sickness(one.slot_index) == Sickness::Offline);
            if was_cut || !is_sick || load.is_over() {
                return self.ended(ended, load);
            }
            was_cut = true;
        }
    }

    fn ended(&self, ended: Result<()>, load: &Load) -> Result<()> {
        match ended {
            Err(error) if !load.is_over() => Err(error.context("the consumer")),
            Err(error) if format!("{error:#}").contains("WRONG") => Err(error),
            _ => Ok(()),
        }
    }

    fn follow(&mut self, connection: &mut Connection, load: &Load) -> Result<()> {
        let mut high_watermarks = vec![0; self.followed.len()];
        loop {
            let wanted: Vec<(&Slot, i64)> = self.followed.iter().map(|one| (&one.slot, one.next)).collect();
            let answer = fetch(connection, &wanted, 50)?;
            for (one, high) in self.followed.iter_mut().zip(&mut high_watermarks) {
                let Some((code, high_watermark, records)) = part_of(&answer, &one.slot) else { continue };
                if code == STORAGE_ERROR && load.sickness(one.slot_index) == Sickness::Offline {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                }
                if code != 0 {
                    ensure!(load.is_over(), "WRONG: fetch of {:?} from {}: error {code}", one.slot, one.next);
                    return Ok(());
                }
                ensure!(high_watermark >= *high, "WRONG: the high watermark went from {high} to {high_watermark}");
                *high = high_watermark;
                for found in batches(&records, one.next)? {
                    ensure!(found.next <= high_watermark, "WRONG: {found:?} lies beyond {high_watermark}");
                    one.next = found.next;
                    one.seen.insert(found.base, found);
                }
            }
        }
    }
}

/// All batches of a partition, from the beginning to the high watermark. One that is still being recovered is asked again.
pub fn read_all(connection: &mut Connection, slot: &Slot) -> Result<Vec<Found>> {
    let (mut next, mut all) = (0, Vec::new());
    let give_up = Instant::now() + RECOVERY_MAX;
    loop {
        let answer = fetch(connection, &[(slot, next)], 0)?;
        let Some((code, high_watermark, records)) = part_of(&answer, slot) else { bail!("no answer for {slot:?}") };
        if code == NOT_LEADER && all.is_empty() && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        }
        ensure!(code == 0, "{slot:?} from {next}: error {code}");
        let found = batches(&records, next)?;
        let last = found.last().map_or(next, |batch| batch.next);
        all.extend(found);
        if last >= high_watermark {
            return Ok(all);
        }
        ensure!(last > next, "{slot:?}: nothing at {next}, below the high watermark {high_watermark}");
        next = last;
    }
}

fn fetch(connection: &mut Connection, wanted: &[(&Slot, i64)], wait_ms: i32) -> Result<FetchResponse> {
    let topics = wanted.iter().map(|(slot, offset)| {
        let partition = FetchPartition::default()
            .with_partition(slot.partition)
            .with_fetch_offset(*offset)
            .with_current_leader_epoch(-1)
            .with_last_fetched_epoch(-1)
            .with_partition_max_bytes(PARTITION_BYTES);
        FetchTopic::default()
            .with_topic(TopicName(StrBytes::from_string(slot.topic.clone())))
            .with_partitions(vec![partition])
    });
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(ANSWER_BYTES)
        .with_session_epoch(-1)
        .with_topics(topics.collect());
    connection.send(&request, VERSION)?;
    let frame = connection.receive("Fetch")?;
    let answer = decode_response::<FetchRequest>(connection.addr(), frame, VERSION)?;
    ensure!(answer.error_code == 0, "fetch: error {}", answer.error_code);
    Ok(answer)
}

/// Error code, high watermark and records of one partition.
fn part_of(answer: &FetchResponse, slot: &Slot) -> Option<(i16, i64, Bytes)> {
    let of_topic = answer.responses.iter().filter(|topic| topic.topic.as_str() == slot.topic);
    let part = of_topic.flat_map(|topic| &topic.partitions).find(|part| part.partition_index == slot.partition)?;
    Some((part.error_code, part.high_watermark, part.records.clone().unwrap_or_default()))
}

/// The whole batches of an answer to a fetch from `next`; the first may begin before it, the last may be cut.
fn batches(records: &Bytes, mut next: i64) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    for batch in walk(records) {
        let batch = batch.map_err(|e| anyhow::anyhow!("WRONG: from offset {next}: {e}"))?;
        let found = identify(&batch.header, batch.bytes).map_err(|e| e.context("WRONG batch"))?;
        ensure!(found.base == next, "WRONG: a gap: offset {} where {next} was due", found.base);
        next = found.next;
        all.push(found);
    }
    Ok(all)
}

//! A producer: keeps several requests under way, notes each acknowledgement, and goes on after the broker's death.
//!
//! An idempotent one sends again, in order and with the same sequences, what was under way when the connection ended; a
//! plain one leaves that to its fate and goes on with new batches: whatever it wrote may be in the log once, or not at all.

use crate::content::{self, Identity, Name};
use crate::ledger::Written;
use crate::world::{Load, Sickness, Slot, connect};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use corelog::client::connection::{Connection, decode_response};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Requests under way: with idempotence Kafka's clients have at most five.
const WINDOW_IDEMPOTENT: usize = 5;
const WINDOW_PLAIN: usize = 24;
/// The longest pause between two requests.
const PAUSE_MAX: Duration = Duration::from_micros(2_500);

pub struct Writer {
    pub id: u32,
    pub acks: i16,
    pub idempotent: bool,
    port: u16,
    seed: u64,
    random: fastrand::Rng,
    identity: Option<Identity>,
    lanes: Vec<Lane>,
    /// What was not acknowledged, in the order of sending.
    under_way: VecDeque<Vec<Part>>,
}

/// A sick disk refused some batches.
#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused by a sick disk, or at the end of the load")
    }
}

impl std::error::Error for Refused {}

/// What a full disk answers, and what follows for the next batch of an idempotent producer.
const STORAGE_ERROR: i16 = 56;
const OUT_OF_ORDER: i16 = 45;
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// A writer's way into one partition.
struct Lane {
    /// Its disk is gone: nothing more is written there.
    lost: bool,
    slot: Slot,
    slot_index: u32,
    next_sequence: i32,
    written: Written,
}

/// One batch of a request.
struct Part {
    lane: usize,
    number: u32,
    bytes: Bytes,
}

impl Writer {
    pub fn new(id: u32, acks: i16, idempotent: bool, seed: u64, slots: &[(u32, Slot)]) -> Writer {
        let lane = |(index, slot): &(u32, Slot)| Lane {
            lost: false,
            slot: slot.clone(),
            slot_index: *index,
            next_sequence: 0,
            written: Written::new(id, idempotent, acks),
        };
        Writer {
            id,
            acks,
            idempotent,
            port: slots[0].1.port,
            seed,
            random: fastrand::Rng::with_seed(seed ^ u64::from(id)),
            identity: None,
            lanes: slots.iter().map(lane).collect(),
            under_way: VecDeque::new(),
        }
    }

    /// What it wrote into a partition.
    pub fn written(&mut self, slot: u32) -> Option<&mut Written> {
        self.lanes.iter_mut().find(|lane| lane.slot_index == slot).map(|lane| &mut lane.written)
    }

    /// After records were lost with leave: a producer that finds its sequences unknown begins anew, as Kafka's clients do.
    pub fn begin_anew(&mut self) {
        self.identity = None;
        self.under_way.clear();
        for lane in &mut self.lanes {
            lane.next_sequence = 0;
            lane.written.contiguous = false;
        }
    }

    /// Writes until the connection ends, which is well only when the load is over. What a sick disk refuses is sent again, or given up
    /// where the disk is gone.
    pub fn run(&mut self, load: &Load) -> Result<()> {
        for lane in &mut self.lanes {
            lane.lost = false;
        }
        loop {
            let ended = connect(self.port).and_then(|mut connection| self.write(&mut connection, load));
            match ended {
                Err(error) if !load.is_over() && error.is::<Refused>() => self.after_refusal(load),
                Err(error) if !load.is_over() => return Err(error.context(format!("writer {}", self.id))),
                Err(error) if format!("{error:#}").contains("WRONG") => return Err(error),
                _ => return Ok(()),
            }
        }
    }

    fn after_refusal(&mut self, load: &Load) {
        for lane in &mut self.lanes {
            lane.lost |= load.sickness(lane.slot_index) == Sickness::Offline;
        }
        for parts in &mut self.under_way {
            parts.retain(|part| !self.lanes[part.lane].lost);
        }
        self.under_way.retain(|parts| !parts.is_empty());
        std::thread::sleep(RETRY_PAUSE);
        while self.lanes.iter().all(|lane| lane.lost) && !load.is_over() {
            std::thread::sleep(RETRY_PAUSE);
        }
    }

    fn write(&mut self, connection: &mut Connection, load: &Load) -> Result<()> {
        if self.idempotent && self.identity.is_none() {
            let answer = connection.call(|_| {
                InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000)
            })?;
            ensure!(answer.error_code == 0, "InitProducerId: error {}", answer.error_code);
            self.identity = Some(Identity { id: answer.producer_id.0, epoch: answer.producer_epoch });
        }
        if !self.idempotent {
            self.under_way.clear();
        }
        let version = connection.version::<ProduceRequest>()?;
        let mut awaited: VecDeque<Vec<Part>> = VecDeque::new();
        let mut refused = VecDeque::new();
        let written = self.send_and_receive(connection, version, &mut awaited, &mut refused, load);
        if written.is_err() {
            // Answers that had left before the end may still be here.
            while let Some(parts) = awaited.pop_front() {
                match self.receive(connection, version, parts, load) {
                    Ok(left) if left.is_empty() => {}
                    Ok(left) => refused.push_back(left),
                    Err((parts, _)) => {
                        awaited.push_front(parts);
                        break;
                    }
                }
            }
        }
        refused.append(&mut awaited);
        refused.append(&mut self.under_way);
        self.under_way = refused;
        written
    }

    /// Ends with an error only, unless the load is over: there is always more to write.
    fn send_and_receive(
        &mut self,
        connection: &mut Connection,
        version: i16,
        awaited: &mut VecDeque<Vec<Part>>,
        refused: &mut VecDeque<Vec<Part>>,
        load: &Load,
    ) -> Result<()> {
        let window = if self.idempotent { WINDOW_IDEMPOTENT } else { WINDOW_PLAIN };
        while !self.lanes.iter().all(|lane| lane.lost) {
            let parts = match self.under_way.pop_front() {
                Some(parts) => parts,
                None => self.next_request(),
            };
            let request = self.request(&parts);
            if let Err(error) = connection.send(&request, version) {
                // Nothing will answer what has not left.
                self.under_way.push_front(parts);
                return Err(error.into());
            }
            awaited.push_back(parts);
            while awaited.len() >= window || (!awaited.is_empty() && self.random.u8(..) < 4) {
                let parts = awaited.pop_front().expect("one is awaited");
                match self.receive(connection, version, parts, load) {
                    Ok(left) if left.is_empty() => {}
                    Ok(left) => {
                        refused.push_back(left);
                        return Err(Refused.into());
                    }
                    Err((parts, error)) => {
                        awaited.push_front(parts);
                        return Err(error);
                    }
                }
            }
            if self.random.bool() && self.under_way.is_empty() {
                std::thread::sleep(PAUSE_MAX.mul_f32(self.random.f32()));
            }
        }
        Ok(())
    }

    /// New batches for some of the partitions.
    fn next_request(&mut self) -> Vec<Part> {
        let open: Vec<usize> = (0..self.lanes.len()).filter(|lane| !self.lanes[*lane].lost).collect();
        let mut chosen: Vec<usize> = open.iter().copied().filter(|_| self.random.bool()).collect();
        if chosen.is_empty() {
            chosen.push(open[self.random.usize(..open.len())]);
        }
        let new_part = |at: usize| {
            let lane = &mut self.lanes[at];
            let number = lane.written.sent.len() as u32;
            let name = Name { writer: self.id, slot: lane.slot_index, number };
            let idempotent = self.identity.map(|identity| (identity, lane.next_sequence));
            let (bytes, records) = content::build(self.seed, name, idempotent);
            lane.next_sequence += records;
            lane.written.sent.push(content::hash(&bytes));
            Part { lane: at, number, bytes }
        };
        chosen.into_iter().map(new_part).collect()
    }

    fn request(&self, parts: &[Part]) -> ProduceRequest {
        let topics = parts.iter().map(|part| {
            let slot = &self.lanes[part.lane].slot;
            let data =
                PartitionProduceData::default().with_index(slot.partition).with_records(Some(part.bytes.clone()));
            let name = TopicName(StrBytes::from_string(slot.topic.clone()));
            TopicProduceData::default().with_name(name).with_partition_data(vec![data])
        });
        ProduceRequest::default().with_acks(self.acks).with_timeout_ms(30_000).with_topic_data(topics.collect())
    }

    /// Takes one answer; gives the parts that were refused, which happens only at the load's end.
    fn receive(
        &mut self,
        connection: &mut Connection,
        version: i16,
        parts: Vec<Part>,
        load: &Load,
    ) -> Result<Vec<Part>, (Vec<Part>, anyhow::Error)> {
        let frame = match connection.receive("Produce") {
            Ok(frame) => frame,
            Err(error) => return Err((parts, error.into())),
        };
        let answer = match decode_response::<ProduceRequest>(connection.addr(), frame, version) {
            Ok(answer) => answer,
            Err(error) => return Err((parts, anyhow::Error::from(error).context("WRONG answer"))),
        };
        let mut left = Vec::new();
        for part in parts {
            let slot = &self.lanes[part.lane].slot;
            let of_topic = answer.responses.iter().filter(|topic| topic.name.as_str() == slot.topic);
            let found = of_topic.flat_map(|topic| &topic.partition_responses).find(|p| p.index == slot.partition);
            let Some(found) = found.with_context(|| format!("WRONG: no answer for {slot:?}")).ok() else {
                return Err((vec![part], anyhow::anyhow!("WRONG: no answer for {slot:?}")));
            };
            match found.error_code {
                0 => {
                    let lane = &mut self.lanes[part.lane];
                    load.note_acked(lane.slot_index);
                    lane.written.acked.insert(found.base_offset, part.number);
                }
                STORAGE_ERROR | OUT_OF_ORDER if load.sickness(self.lanes[part.lane].slot_index) != Sickness::None => {
                    load.note_refused();
                    left.push(part);
                }
                _ if load.is_over() => left.push(part),
                code => {
                    let what = format!("WRONG: batch {} for {slot:?} was refused with code {code}", part.number);
                    let message = found.error_message.as_deref().unwrap_or_default();
                    return Err((vec![part], anyhow::anyhow!("{what} {message}")));
                }
            }
        }
        Ok(left)
    }
}

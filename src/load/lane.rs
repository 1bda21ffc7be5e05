//! One connection under load: does what is due, takes what has come, and never waits.

use super::batches::NOT_COUNTED;
use super::crew::Stock;
use super::cutter::Cutter;
use super::error::LoadError;
use super::frames::{self, FetchFrame};
use super::identity::Identity;
use super::link::Link;
use super::measure::{Phase, Scores};
use super::pipeline::{Next, Pipeline};
use super::reading::Reading;
use super::skew::Turns;
use super::skim::{Found, Skim};
use std::time::{Duration, Instant};

/// Bytes that are gathered for one write, so that answers are not left waiting.
const WRITE_BYTES: usize = 256 << 10;
/// What one read asks for.
const READ_BYTES: usize = 256 << 10;
/// Reads, and rounds of writing, of one connection before the others have their turn.
const TURNS_MAX: usize = 8;
/// How long a fetch that failed waits before the next.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// What the connections of a thread share.
pub struct Hub<'b> {
    /// When the run began; all times count from here.
    pub start: Instant,
    pub buffer: Vec<u8>,
    pub stock: Stock,
    pub scores: Scores<'b>,
}

impl Hub<'_> {
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

pub enum Lane {
    Produce(Box<ProduceLane>),
    Consume(Box<ConsumeLane>),
}

/// Sends batches of the thread's stock.
pub struct ProduceLane {
    pub link: Link,
    /// Which frames.
    pub turns: Turns,
    /// One record at a time: only its latency counts.
    pub is_probe: bool,
    /// The batch that its first request carries.
    pub first: u64,
    pub pipeline: Pipeline,
    /// Write into each batch when it was due, in microseconds since the start.
    pub stamped: bool,
    /// Draw a key for each record: below how many, and by what chance.
    pub keys: Option<(u64, fastrand::Rng)>,
    pub identity: Option<Identity>,
    pub answered: bool,
    pub request_records: u64,
    /// Of one request.
    pub partitions: u64,
    pub cutter: Cutter,
    /// When the next request is due, if nothing but time keeps it back.
    pub wake: Option<Duration>,
    /// There is more to send at once: others had their turn first.
    pub has_more: bool,
}

/// Fetches partitions, one after the other; `frames` are theirs.
pub struct ConsumeLane {
    pub link: Link,
    pub frames: Vec<FetchFrame>,
    pub reading: Reading,
    pub skim: Skim,
    /// Batches bear the time at which they were due: latencies are of records, from then on.
    pub stamped: bool,
    /// When the request was sent that waits for its answer.
    pub asked: Option<Duration>,
    pub correlation: i32,
    /// Records of the answer that is arriving.
    pub records: u64,
    pub not_before: Duration,
    pub wake: Option<Duration>,
}

impl Lane {
    pub fn link(&self) -> &Link {
        match self {
            Lane::Produce(lane) => &lane.link,
            Lane::Consume(lane) => &lane.link,
        }
    }

    /// Whether the socket has to tell when it takes more.
    pub fn wants_to_write(&self) -> bool {
        self.link().is_blocked || matches!(self, Lane::Produce(lane) if lane.has_more)
    }

    /// When to be advanced again at the latest.
    pub fn wake(&self) -> Option<Duration> {
        match self {
            Lane::Produce(lane) => lane.wake,
            Lane::Consume(lane) => lane.wake,
        }
    }

    /// Nothing that was sent waits for its answer. A consumer's last fetch need not be answered.
    pub fn is_idle(&self) -> bool {
        match self {
            Lane::Produce(lane) => lane.link.out.is_empty() && lane.pipeline.in_flight() == 0,
            Lane::Consume(_) => true,
        }
    }

    /// Nothing is left to do.
    pub fn is_done(&self) -> bool {
        matches!(self, Lane::Consume(lane) if lane.reading.wanted().is_none())
    }

    /// Sends what is due.
    pub fn advance(&mut self, hub: &mut Hub) -> Result<(), LoadError> {
        match self {
            Lane::Produce(lane) => lane.advance(hub),
            Lane::Consume(lane) => lane.advance(hub),
        }
    }

    /// Takes what has come, and goes on.
    pub fn receive(&mut self, hub: &mut Hub) -> Result<(), LoadError> {
        match self {
            Lane::Produce(lane) => lane.receive(hub)?,
            Lane::Consume(lane) => lane.receive(hub)?,
        }
        self.advance(hub)
    }
}

impl ProduceLane {
    fn advance(&mut self, hub: &mut Hub) -> Result<(), LoadError> {
        (self.wake, self.has_more) = (None, false);
        for _ in 0..TURNS_MAX {
            if !self.link.flush()? || hub.scores.phase() == Phase::Over || !self.fill(hub) {
                return Ok(());
            }
        }
        self.has_more = true;
        Ok(())
    }

    /// Gathers what is due and fits; whether that is anything.
    fn fill(&mut self, hub: &mut Hub) -> bool {
        let now = hub.now();
        while self.link.out.len() < WRITE_BYTES {
            let in_flight = self.pipeline.in_flight();
            if !self.identity.as_mut().is_none_or(|identity| identity.may_send(in_flight)) {
                break;
            }
            let (number, due) = match self.pipeline.next(now) {
                Next::Send { number, due } => (number, due),
                Next::Wait(due) => {
                    self.wake = Some(due);
                    break;
                }
                Next::Full => break,
            };
            let stamp = self.stamped.then_some(due.as_micros() as u64);
            let turn = self.first + number;
            let (frame, batch) = hub.stock.pick(self.turns.next(number), self.is_probe, turn);
            frame.put(number as i32, batch, &mut self.link.out, |partition, batch| {
                let author = self.identity.as_mut().map(|identity| identity.next(partition, batch.records()));
                batch.mark(stamp, self.keys.as_mut().map(|(keys, random)| (*keys, random)), author);
            });
            if !self.is_probe {
                hub.scores.sent(self.request_records);
            }
            if !self.answered {
                self.count(number, &hub.stock, &mut hub.scores);
            }
        }
        !self.link.out.is_empty()
    }

    fn receive(&mut self, hub: &mut Hub) -> Result<(), LoadError> {
        let at = self.cutter.prepare(&mut hub.buffer, READ_BYTES)?;
        let Some(read) = self.link.read(&mut hub.buffer[at..])? else { return Ok(()) };
        let now = hub.now();
        let Hub { buffer, stock, scores, .. } = hub;
        let mut cutter = std::mem::take(&mut self.cutter);
        let cut = cutter.cut(&buffer[..at + read], |answer| {
            let (number, due) = self.pipeline.answer().ok_or(LoadError::Unasked)?;
            match frames::produce_error(answer)? {
                0 => self.count(number, stock, scores),
                code => {
                    scores.error(code);
                    self.identity.iter_mut().for_each(Identity::fail);
                }
            }
            match self.is_probe {
                true => scores.probe(now.saturating_sub(due)),
                false => scores.latency(now, now.saturating_sub(due)),
            }
            Ok(())
        });
        self.cutter = cutter;
        cut
    }

    /// A request was answered, or will never be.
    fn count(&self, number: u64, stock: &Stock, scores: &mut Scores) {
        if !self.is_probe {
            let bytes = stock.value_bytes(false, self.first + number) * self.partitions;
            scores.request(self.request_records, bytes);
        }
    }
}

impl ConsumeLane {
    fn advance(&mut self, hub: &mut Hub) -> Result<(), LoadError> {
        self.wake = None;
        if !self.link.flush()? || self.asked.is_some() || hub.scores.phase() == Phase::Over {
            return Ok(());
        }
        let Some((part, offset)) = self.reading.wanted() else { return Ok(()) };
        let (now, due) = (hub.now(), self.reading.due().max(self.not_before));
        if due > now {
            self.wake = Some(due);
            return Ok(());
        }
        self.correlation = self.correlation.wrapping_add(1);
        self.frames[part].put(offset, self.correlation, &mut self.link.out);
        self.asked = Some(now);
        self.link.flush()?;
        Ok(())
    }

    fn receive(&mut self, hub: &mut Hub) -> Result<(), LoadError> {
        if hub.buffer.len() < READ_BYTES {
            hub.buffer.resize(READ_BYTES, 0);
        }
        for _ in 0..TURNS_MAX {
            let Some(read) = self.link.read(&mut hub.buffer)? else { return Ok(()) };
            let now = hub.start.elapsed();
            let Hub { buffer, scores, .. } = hub;
            let mut unasked = false;
            // `feed` borrows the skimmer: the rest of the lane is handled by parts.
            let ConsumeLane { skim, reading, asked, records, not_before, stamped, .. } = self;
            skim.feed(&buffer[..read], &mut |found| match found {
                Found::Batch { header, stamp, is_intact } => {
                    let count = header.record_count.max(0) as u64;
                    *records += count;
                    let gap = reading.batch(header.base_offset.0, header.next_offset().0, count);
                    scores.batch(gap, is_intact);
                    if let (true, Some(stamp)) = (*stamped, stamp.filter(|stamp| *stamp != NOT_COUNTED)) {
                        scores.through(now, now.saturating_sub(Duration::from_micros(stamp)), count);
                    }
                }
                Found::End { error, high_watermark, record_bytes } => {
                    let Some(since) = asked.take() else {
                        unasked = true;
                        return;
                    };
                    if error == 0 {
                        reading.answered(high_watermark);
                    } else {
                        scores.error(error);
                        *not_before = now + ERROR_PAUSE;
                    }
                    if error == 0 && !*stamped {
                        scores.request(*records, record_bytes as u64);
                        if *records > 0 {
                            scores.latency(now, now.saturating_sub(since));
                        }
                    }
                    *records = 0;
                }
            })?;
            if unasked {
                return Err(LoadError::Unasked);
            }
            if read < READ_BYTES {
                return Ok(());
            }
        }
        Ok(())
    }
}

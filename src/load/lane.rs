//! One connection under load, on a thread of its own.

use super::frames::{self, FetchFrame, ProduceFrame};
use super::measure::{Board, Latencies, Phase};
use super::plan::Pace;
use super::run::LoadError;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Requests that go out with one write at most, in bytes, so that answers are not left waiting.
const WRITE_BYTES: usize = 256 << 10;
/// What one read asks for; larger answers make the buffer grow.
const READ_BYTES: usize = 256 << 10;
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// How long a fetch that failed waits before the next.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// Sends batches. `frames` take turns; requests are due by `pace`, or the pipeline is kept full.
pub struct ProduceLane {
    pub socket: TcpStream,
    pub frames: Vec<ProduceFrame>,
    pub depth: usize,
    pub pace: Option<Pace>,
    /// Write into each batch when it was due, in microseconds since the start.
    pub stamped: bool,
    /// Draw a key for each record: below how many, and by what chance.
    pub keys: Option<(u64, fastrand::Rng)>,
    pub answered: bool,
    pub request_records: u64,
    pub request_bytes: u64,
}

impl ProduceLane {
    fn drive(&mut self, start: Instant, board: &Board, latencies: &mut Latencies) -> Result<(), LoadError> {
        let mut answers = Answers::new(self.socket.try_clone()?);
        let mut in_flight: VecDeque<Instant> = VecDeque::with_capacity(self.depth);
        let mut out = Vec::with_capacity(WRITE_BYTES);
        let mut sent = 0u64;
        while board.phase() != Phase::Over {
            let next = self.fill(start, &mut out, &mut in_flight, &mut sent, board)?;
            match next {
                Some(due) if in_flight.is_empty() => sleep_until(due),
                Some(due) if !answers.has_whole_frame() && !self.readable_before(due)? => {}
                _ if in_flight.is_empty() => {}
                _ => self.collect(&mut answers, &mut in_flight, latencies, board)?,
            }
        }
        Ok(())
    }

    /// Sends what is due and fits; tells when the next one is due if room is left for it.
    fn fill(
        &mut self,
        start: Instant,
        out: &mut Vec<u8>,
        in_flight: &mut VecDeque<Instant>,
        sent: &mut u64,
        board: &Board,
    ) -> io::Result<Option<Instant>> {
        out.clear();
        let mut next = None;
        while in_flight.len() < self.depth && out.len() < WRITE_BYTES {
            let now = Instant::now();
            let due = self.pace.map_or(now, |pace| start + pace.due(*sent));
            if due > now {
                next = Some(due);
                break;
            }
            let turn = *sent as usize % self.frames.len();
            let frame = &mut self.frames[turn];
            if self.stamped {
                frame.stamp(due.saturating_duration_since(start).as_micros() as u64);
            }
            if let Some((keys, random)) = &mut self.keys {
                frame.draw_keys(*keys, random);
            }
            out.extend_from_slice(frame.numbered(*sent as i32));
            *sent += 1;
            if self.answered {
                in_flight.push_back(due);
            } else {
                board.note_request(self.request_records, self.request_bytes);
            }
        }
        if !out.is_empty() {
            self.socket.write_all(out)?;
        }
        Ok(next)
    }

    /// Waits for an answer, at least one frame of it, no longer than until `due`.
    fn readable_before(&self, due: Instant) -> io::Result<bool> {
        let left = due.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Takes one answer, and all others that are here already.
    fn collect(
        &self,
        answers: &mut Answers,
        in_flight: &mut VecDeque<Instant>,
        latencies: &mut Latencies,
        board: &Board,
    ) -> Result<(), LoadError> {
        loop {
            let frame = answers.next()?;
            let due = in_flight.pop_front().ok_or(LoadError::Unasked)?;
            match frames::produce_error(frame)? {
                0 => board.note_request(self.request_records, self.request_bytes),
                code => board.note_error(code),
            }
            if board.phase() == Phase::Measured {
                latencies.note(due.elapsed(), 1);
            }
            if in_flight.is_empty() || !answers.has_whole_frame() {
                return Ok(());
            }
        }
    }
}

/// Fetches one partition.
pub struct ConsumeLane {
    pub socket: TcpStream,
    pub frame: FetchFrame,
    /// Where the partition begins, and where this one starts to read.
    pub beginning: i64,
    pub offset: i64,
    /// Ends at the high watermark; otherwise it begins again there.
    pub once: bool,
    /// Stays at the end and waits for what comes.
    pub tail: bool,
    /// Records a second, of this connection.
    pub rate: Option<f64>,
    /// Batches bear the time at which they were due: latencies are of records, from then on.
    pub stamped: bool,
}

/// A connection that is made and has not begun.
pub enum Lane {
    Produce(ProduceLane),
    Consume(ConsumeLane),
}

impl Lane {
    pub fn socket(&self) -> &TcpStream {
        match self {
            Lane::Produce(lane) => &lane.socket,
            Lane::Consume(lane) => &lane.socket,
        }
    }

    /// Works until the run is over; requests are due, and stamps count, from `start`. What fails when it is over is no error: the
    /// connection is closed then.
    pub fn run(self, start: Instant, board: &Board) -> Result<Latencies, LoadError> {
        let mut latencies = Latencies::default();
        let ended = match self {
            Lane::Produce(mut lane) => lane.drive(start, board, &mut latencies),
            Lane::Consume(mut lane) => lane.drive(start, board, &mut latencies),
        };
        match ended {
            Err(error) if board.phase() != Phase::Over => Err(error),
            _ => Ok(latencies),
        }
    }
}

impl ConsumeLane {
    fn drive(&mut self, start: Instant, board: &Board, latencies: &mut Latencies) -> Result<(), LoadError> {
        let mut answers = Answers::new(self.socket.try_clone()?);
        let (mut asked, mut read) = (0i32, 0u64);
        let began = Instant::now();
        while board.phase() != Phase::Over {
            if let Some(rate) = self.rate {
                sleep_until(began + Duration::from_secs_f64(read as f64 / rate));
            }
            let sent = Instant::now();
            asked = asked.wrapping_add(1);
            self.socket.write_all(self.frame.at(self.offset, asked))?;
            let frame = answers.next()?;
            let elapsed = sent.elapsed();
            let measured = board.phase() == Phase::Measured;
            let got = frames::fetched(frame)?;
            if got.error != 0 {
                board.note_error(got.error);
                std::thread::sleep(ERROR_PAUSE);
                continue;
            }
            let mut records = 0;
            for (header, batch) in frames::batches(got.records) {
                let count = header.record_count.max(0) as u64;
                records += count;
                self.offset = header.base_offset.0 + i64::from(header.last_offset_delta) + 1;
                if let (true, true, Some(stamp)) = (self.stamped, measured, frames::stamp_of(batch)) {
                    latencies.note(start.elapsed().saturating_sub(Duration::from_micros(stamp)), count);
                }
            }
            read += records;
            if !self.stamped {
                board.note_request(records, got.records.len() as u64);
                if measured && records > 0 {
                    latencies.note(elapsed, 1);
                }
            }
            if self.offset >= got.high_watermark && !self.tail {
                if self.once {
                    break;
                }
                self.offset = self.beginning;
            }
        }
        Ok(())
    }
}

/// Answers, read many at a time and cut into frames.
struct Answers {
    socket: TcpStream,
    buffer: Vec<u8>,
    unread: Range<usize>,
}

impl Answers {
    fn new(socket: TcpStream) -> Answers {
        Answers { socket, buffer: vec![0; READ_BYTES], unread: 0..0 }
    }

    /// The next answer, behind its length.
    fn next(&mut self) -> Result<&[u8], LoadError> {
        loop {
            match self.frame_bytes()? {
                Some(bytes) if bytes <= self.unread.len() => {
                    let frame = self.unread.start + 4..self.unread.start + bytes;
                    self.unread.start += bytes;
                    return Ok(&self.buffer[frame]);
                }
                needed => self.read(needed.unwrap_or(4))?,
            }
        }
    }

    fn has_whole_frame(&self) -> bool {
        self.frame_bytes().is_ok_and(|bytes| bytes.is_some_and(|bytes| bytes <= self.unread.len()))
    }

    /// Bytes of the next frame with its length, if that is here.
    fn frame_bytes(&self) -> Result<Option<usize>, LoadError> {
        let unread = &self.buffer[self.unread.clone()];
        let Some(length) = unread.first_chunk::<4>() else { return Ok(None) };
        match usize::try_from(i32::from_be_bytes(*length)) {
            Ok(length) if length <= ANSWER_BYTES_MAX => Ok(Some(4 + length)),
            _ => Err(LoadError::NotKafka),
        }
    }

    fn read(&mut self, needed: usize) -> io::Result<()> {
        if self.unread.start > 0 && self.buffer.len() - self.unread.start < needed.max(READ_BYTES / 2) {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        if self.buffer.len() < needed {
            self.buffer.resize(needed.next_power_of_two(), 0);
        }
        match self.socket.read(&mut self.buffer[self.unread.end..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                self.unread.end += read;
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(e) => Err(e),
        }
    }
}

fn sleep_until(due: Instant) {
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn frames_are_cut_wherever_reads_end() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let mut peer = TcpStream::connect(listener.local_addr().expect("address")).expect("connected");
        let mut answers = Answers::new(listener.accept().expect("accepted").0);
        let frames: Vec<Vec<u8>> = [1, 5, 300_000, 2, 700_000, 8].iter().map(|n| vec![*n as u8; *n as usize]).collect();
        let sent = frames.clone();
        let writer = std::thread::spawn(move || {
            for frame in &sent {
                peer.write_all(&(frame.len() as u32).to_be_bytes()).expect("written");
                peer.write_all(frame).expect("written");
            }
            peer.write_all(&[0xff; 4]).expect("written");
        });
        for frame in &frames {
            assert!(answers.next().expect("whole") == frame);
        }
        assert!(matches!(answers.next(), Err(LoadError::NotKafka)));
        writer.join().expect("ended");
    }
}

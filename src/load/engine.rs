//! A thread of the generator: many connections, one epoll, and an alarm for the next request that is due.

use super::crew::Crew;
use super::error::LoadError;
use super::lane::{Hub, Lane};
use super::measure::{Board, Phase, Scores, Seen};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::time::Timespec;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::time::{Duration, Instant};

/// What answers that are under way at the end get.
const GRACE: Duration = Duration::from_secs(10);
/// Connections that are told about at once.
const EVENTS_MAX: usize = 256;
/// What stands for the board's bell among the numbers of connections.
const BELL: u64 = u64::MAX;

/// Drives these connections until the run is over, or none has anything left to do. Requests are due, and stamps count, from `start`.
pub fn drive(crew: Crew, start: Instant, board: &Board, thread: usize) -> Result<Seen, LoadError> {
    let hub = Hub { start, buffer: Vec::new(), stock: crew.stock, scores: Scores::new(board, thread) };
    let mut engine = Engine {
        board,
        thread,
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?,
        hub,
        seats: Vec::new(),
        alarms: BinaryHeap::new(),
    };
    epoll::add(&engine.epoll, board.bell(thread), EventData::new_u64(BELL), EventFlags::IN).map_err(io::Error::from)?;
    for lane in crew.lanes {
        engine.add(lane)?;
    }
    let ended = engine.run();
    engine.hub.scores.publish();
    ended.map(|()| engine.hub.scores.into_seen())
}

struct Engine<'b> {
    board: &'b Board,
    thread: usize,
    epoll: OwnedFd,
    hub: Hub<'b>,
    seats: Vec<Seat>,
    /// When which connection wants to be advanced; those that a seat does not know any more are out of date.
    alarms: BinaryHeap<Reverse<(Duration, usize)>>,
}

struct Seat {
    lane: Lane,
    /// What the socket is asked to tell.
    interest: EventFlags,
    alarm: Option<Duration>,
}

impl Engine<'_> {
    fn add(&mut self, lane: Lane) -> io::Result<()> {
        let number = EventData::new_u64(self.seats.len() as u64);
        epoll::add(&self.epoll, &lane.link().socket, number, EventFlags::IN)?;
        self.seats.push(Seat { lane, interest: EventFlags::IN, alarm: None });
        Ok(())
    }

    fn run(&mut self) -> Result<(), LoadError> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut deadline = None;
        self.hub.scores.look();
        for number in 0..self.seats.len() {
            self.advance(number)?;
        }
        loop {
            self.hub.scores.publish();
            self.hub.scores.look();
            let now = self.hub.now();
            if self.hub.scores.phase() == Phase::Over {
                let until = *deadline.get_or_insert(now + GRACE);
                if now >= until || self.seats.iter().all(|seat| seat.lane.is_idle()) {
                    return Ok(());
                }
            }
            if self.seats.iter().all(|seat| seat.lane.is_done()) {
                return Ok(());
            }
            self.wait(now, deadline, &mut events)?;
            for event in events.drain(..) {
                // Copied out of the packed structure first.
                let (data, flags) = (event.data, event.flags);
                self.told(data.u64() as usize, flags)?;
            }
            self.ring()?;
        }
    }

    /// Sleeps until a socket has something to tell, the run enters another phase, or an alarm goes off. Without alarms there is
    /// no timer, which costs more than the rest where its hardware is emulated.
    fn wait(&self, now: Duration, deadline: Option<Duration>, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        let alarm = self.alarms.peek().map(|Reverse((due, _))| *due);
        let alarm = alarm.into_iter().chain(deadline).min().map(|due| due.saturating_sub(now));
        let timeout =
            alarm.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
        match epoll::wait(&self.epoll, spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn told(&mut self, number: usize, flags: EventFlags) -> Result<(), LoadError> {
        if number as u64 == BELL {
            self.board.hush(self.thread);
            return Ok(());
        }
        let Some(seat) = self.seats.get_mut(number) else { return Ok(()) };
        // Errors and ends are told by reading.
        if flags.intersects(EventFlags::IN | EventFlags::ERR | EventFlags::HUP) {
            seat.lane.receive(&mut self.hub)?;
        } else {
            seat.lane.advance(&mut self.hub)?;
        }
        self.settle(number)
    }

    /// Advances all whose time has come.
    fn ring(&mut self) -> Result<(), LoadError> {
        let now = self.hub.now();
        while let Some(Reverse((due, number))) = self.alarms.peek().copied() {
            if due > now {
                break;
            }
            self.alarms.pop();
            if self.seats[number].alarm == Some(due) {
                self.seats[number].alarm = None;
                self.advance(number)?;
            }
        }
        Ok(())
    }

    fn advance(&mut self, number: usize) -> Result<(), LoadError> {
        self.seats[number].lane.advance(&mut self.hub)?;
        self.settle(number)
    }

    /// After a lane has done something: what its socket shall tell, and when it wants to be woken.
    fn settle(&mut self, number: usize) -> Result<(), LoadError> {
        let seat = &mut self.seats[number];
        let interest = match seat.lane.wants_to_write() {
            true => EventFlags::IN | EventFlags::OUT,
            false => EventFlags::IN,
        };
        if interest != seat.interest {
            let data = EventData::new_u64(number as u64);
            epoll::modify(&self.epoll, &seat.lane.link().socket, data, interest).map_err(io::Error::from)?;
            seat.interest = interest;
        }
        if seat.lane.wake() != seat.alarm {
            seat.alarm = seat.lane.wake();
            if let Some(due) = seat.alarm {
                self.alarms.push(Reverse((due, number)));
            }
        }
        Ok(())
    }
}

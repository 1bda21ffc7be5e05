//! When a producer's connection sends its next request, and what its answers answer. Pure.

use super::plan::Pace;
use std::collections::VecDeque;
use std::time::Duration;

/// The requests of one connection. All times are since the start of the run.
pub struct Pipeline {
    pace: Option<Pace>,
    depth: usize,
    /// Whether requests are answered: those of acks=0 are not.
    answered: bool,
    sent: u64,
    /// When those that wait for their answer were due, the oldest first: Kafka answers in the order of requests.
    in_flight: VecDeque<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send the request of this number; its latency counts from `due`.
    Send { number: u64, due: Duration },
    /// There is room, but the next request is not due before.
    Wait(Duration),
    /// An answer has to come first.
    Full,
}

impl Pipeline {
    pub fn new(pace: Option<Pace>, depth: usize, answered: bool) -> Pipeline {
        Pipeline { pace, depth, answered, sent: 0, in_flight: VecDeque::with_capacity(depth.min(1024)) }
    }

    /// What to do at this time. What is told to be sent counts as sent.
    pub fn next(&mut self, now: Duration) -> Next {
        if self.in_flight.len() >= self.depth {
            return Next::Full;
        }
        let due = self.pace.map_or(now, |pace| pace.due(self.sent));
        if due > now {
            return Next::Wait(due);
        }
        let number = self.sent;
        self.sent += 1;
        if self.answered {
            self.in_flight.push_back(due);
        }
        Next::Send { number, due }
    }

    /// Takes the oldest request as answered, and tells its number and when it was due; None if nothing was asked.
    pub fn answer(&mut self) -> Option<(u64, Duration)> {
        let number = self.sent - self.in_flight.len() as u64;
        self.in_flight.pop_front().map(|due| (number, due))
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::plan;
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_closed_loop_keeps_its_depth_and_counts_from_sending() {
        let mut pipeline = Pipeline::new(None, 2, true);
        assert_eq!(pipeline.next(MS(5)), Next::Send { number: 0, due: MS(5) });
        assert_eq!(pipeline.next(MS(6)), Next::Send { number: 1, due: MS(6) });
        assert_eq!(pipeline.next(MS(7)), Next::Full);
        assert_eq!(pipeline.answer(), Some((0, MS(5))));
        assert_eq!(pipeline.next(MS(9)), Next::Send { number: 2, due: MS(9) });
        assert_eq!(
            (pipeline.answer(), pipeline.answer(), pipeline.answer()),
            (Some((1, MS(6))), Some((2, MS(9))), None)
        );
    }

    #[test]
    fn an_open_loop_charges_a_stall_to_every_request_that_was_due_in_it() {
        // One request in 40 ms (four connections, 10 records each, 1,000 records a second).
        let mut pipeline = Pipeline::new(plan().pace(0), 2, true);
        assert_eq!(pipeline.next(MS(0)), Next::Send { number: 0, due: MS(0) });
        assert_eq!(pipeline.next(MS(1)), Next::Wait(MS(40)));
        assert_eq!(pipeline.next(MS(41)), Next::Send { number: 1, due: MS(40) });
        // Nothing is answered for a second: two are in flight, and the others cannot leave. They stay due when they were.
        assert_eq!(pipeline.next(MS(1000)), Next::Full);
        assert_eq!((pipeline.answer(), pipeline.answer()), (Some((0, MS(0))), Some((1, MS(40)))));
        assert_eq!(pipeline.next(MS(1000)), Next::Send { number: 2, due: MS(80) });
        assert_eq!(pipeline.next(MS(1000)), Next::Send { number: 3, due: MS(120) });
        assert_eq!(pipeline.in_flight(), 2);
    }

    #[test]
    fn without_answers_nothing_is_in_flight() {
        let mut pipeline = Pipeline::new(None, 1, false);
        for number in 0..10 {
            assert_eq!(pipeline.next(MS(number)), Next::Send { number, due: MS(number) });
        }
        assert_eq!(pipeline.answer(), None);
    }
}

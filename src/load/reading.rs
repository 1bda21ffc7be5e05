//! Where a consumer's connection reads next. Pure.

use std::time::Duration;

/// A partition: where it begins, and what is asked for next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub beginning: i64,
    pub offset: i64,
}

/// What happens when a partition's end is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtEnd {
    /// Wait there for what comes.
    Stay,
    /// The next partition, and after the last one the first again, from its beginning.
    Again,
    /// The next partition, and after the last one nothing more.
    Stop,
}

/// The partitions of one connection, read one after the other.
pub struct Reading {
    places: Vec<Place>,
    at: usize,
    at_end: AtEnd,
    /// Records a second.
    rate: Option<f64>,
    read: u64,
    done: bool,
}

impl Reading {
    pub fn new(places: Vec<Place>, at_end: AtEnd, rate: Option<f64>) -> Reading {
        let done = places.is_empty();
        Reading { places, at: 0, at_end, rate, read: 0, done }
    }

    /// The partition, by its number in the list, and the offset to ask for; None when nothing is left.
    pub fn wanted(&self) -> Option<(usize, i64)> {
        if self.done {
            return None;
        }
        self.places.get(self.at).map(|place| (self.at, place.offset))
    }

    /// When that is due, since the start of the run.
    pub fn due(&self) -> Duration {
        let seconds = self.rate.map_or(0.0, |rate| self.read as f64 / rate);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// A batch came. Tells how many offsets lie between what was read before and this batch.
    pub fn batch(&mut self, base_offset: i64, next_offset: i64, records: u64) -> u64 {
        let Some(place) = self.places.get_mut(self.at) else { return 0 };
        let gap = base_offset.saturating_sub(place.offset).max(0) as u64;
        place.offset = next_offset;
        self.read += records;
        gap
    }

    /// An answer was read to its end.
    pub fn answered(&mut self, high_watermark: i64) {
        let Some(place) = self.places.get_mut(self.at) else { return };
        if place.offset < high_watermark || self.at_end == AtEnd::Stay {
            return;
        }
        if self.at_end == AtEnd::Again {
            place.offset = place.beginning;
        }
        self.at += 1;
        if self.at == self.places.len() {
            self.at = 0;
            self.done = self.at_end == AtEnd::Stop;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at_end: AtEnd) -> Reading {
        let place = |beginning| Place { beginning, offset: beginning };
        Reading::new(vec![place(0), place(100)], at_end, Some(1000.0))
    }

    #[test]
    fn partitions_are_read_in_turn_to_their_ends() {
        let mut once = reading(AtEnd::Stop);
        assert_eq!((once.wanted(), once.due()), (Some((0, 0)), Duration::ZERO));
        assert_eq!(once.batch(0, 7, 7), 0);
        once.answered(10);
        assert_eq!((once.wanted(), once.due()), (Some((0, 7)), Duration::from_millis(7)));
        assert_eq!(once.batch(9, 10, 1), 2, "offsets 7 and 8 are not there");
        once.answered(10);
        assert_eq!(once.wanted(), Some((1, 100)));
        once.answered(100);
        assert_eq!(once.wanted(), None);
    }

    #[test]
    fn over_and_over_or_waiting_at_the_end() {
        let mut again = reading(AtEnd::Again);
        again.batch(0, 10, 10);
        again.answered(10);
        again.batch(100, 110, 10);
        again.answered(110);
        assert_eq!(again.wanted(), Some((0, 0)));
        let mut tail = reading(AtEnd::Stay);
        tail.batch(0, 10, 10);
        tail.answered(10);
        assert_eq!(tail.wanted(), Some((0, 10)));
        assert_eq!(Reading::new(Vec::new(), AtEnd::Again, None).wanted(), None);
    }
}

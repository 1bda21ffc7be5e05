//! How fast compaction may go beside clients where the operator set no limit. Pure: whoever asks says what time it is.
//!
//! A disk that has much to write answers late, and those who wait for acks=all wait for the disk. So compaction takes what it likes while
//! clients are silent. Beside them it takes several times what they write to compacted topics, since so much compaction comes of each byte,
//! and never less than what a disk hardly notices.

use std::time::Duration;

/// How often clients are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Clients that moved nothing for so long are silent.
const SILENCE: Duration = Duration::from_secs(1);
/// Bytes per second that a disk hardly notices: at 30 MB/s p99 beside a compaction was that without one (bench/compaction).
const LEAST: u64 = 32 << 20;
/// Bytes that compaction moves for each one that clients write to a compacted topic, at the default `min.cleanable.dirty.ratio` of a half:
/// it is read twice, an older one that it comes to lie beside once more, and what is kept of both is written.
const MOVED_FOR_EACH: u64 = 5;

/// What clients did since the node started, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    /// Written, and read from disks.
    pub moved: u64,
    /// Written to compacted topics.
    pub to_compact: u64,
}

/// Follows what clients do.
#[derive(Debug)]
pub struct Pace {
    looked_at: Duration,
    clients: Clients,
    heard_at: Duration,
    limit: u64,
}

impl Pace {
    /// Clients are taken for busy at first.
    pub fn new(now: Duration) -> Pace {
        Pace { looked_at: now, clients: Clients::default(), heard_at: now, limit: LEAST }
    }

    /// Bytes per second, 0: no limit.
    pub fn limit(&mut self, now: Duration, clients: impl FnOnce() -> Clients) -> u64 {
        let elapsed = now.saturating_sub(self.looked_at);
        if elapsed < LOOK_EVERY {
            return self.limit;
        }
        let (before, clients) = (self.clients, clients());
        (self.looked_at, self.clients) = (now, clients);
        if clients.moved != before.moved {
            self.heard_at = now;
        }
        let to_compact = u128::from(clients.to_compact.saturating_sub(before.to_compact));
        let speed = to_compact * 1_000_000_000 / elapsed.as_nanos();
        let beside = u64::try_from(speed).unwrap_or(u64::MAX).saturating_mul(MOVED_FOR_EACH).max(LEAST);
        self.limit = if now.saturating_sub(self.heard_at) >= SILENCE { 0 } else { beside };
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn moved(moved: u64) -> impl FnOnce() -> Clients {
        move || Clients { moved, to_compact: 0 }
    }

    #[test]
    fn silent_clients_are_not_waited_for_and_busy_ones_are() {
        let mut pace = Pace::new(Duration::ZERO);
        assert_eq!(pace.limit(50 * MS, || unreachable!("it was just looked")), LEAST, "busy until shown otherwise");
        assert_eq!(pace.limit(900 * MS, moved(0)), LEAST);
        assert_eq!(pace.limit(1000 * MS, moved(0)), 0, "a second of silence");
        assert_eq!(pace.limit(1100 * MS, moved(1)), LEAST, "one byte, and somebody waits for it");
        assert_eq!(pace.limit(2000 * MS, moved(1)), LEAST, "not a second yet");
        assert_eq!(pace.limit(2200 * MS, moved(1)), 0);
    }

    #[test]
    fn it_keeps_up_with_what_clients_write_to_compacted_topics() {
        let mut pace = Pace::new(Duration::ZERO);
        let written = 200 << 20;
        let clients = |to_compact| move || Clients { moved: u64::MAX / 2 + to_compact, to_compact };
        assert_eq!(pace.limit(Duration::from_secs(1), clients(0)), LEAST, "whatever is written elsewhere");
        assert_eq!(pace.limit(Duration::from_secs(3), clients(written)), MOVED_FOR_EACH * (100 << 20));
        // A counter never goes back, and nobody divides by nothing.
        assert_eq!(pace.limit(Duration::from_secs(3), clients(0)), MOVED_FOR_EACH * (100 << 20));
        assert_eq!(pace.limit(Duration::from_secs(4), clients(0)), LEAST);
    }
}

//! A limit of bytes per second, as a bucket that fills with time. Pure: whoever asks says what time it is.

use std::time::Duration;

/// Work that was not done may be caught up within so long; it must not come as a burst.
const BURST: Duration = Duration::from_millis(100);

/// One stream of work under a limit that may change at any time.
#[derive(Debug, Default)]
pub struct Bucket {
    /// When everything that was taken so far is paid for, on the caller's clock.
    paid_at: Duration,
}

impl Bucket {
    /// Takes `bytes` at the time `now`; gives how long to wait before the next ones are taken. `bytes_per_second` 0: no limit.
    pub fn take(&mut self, now: Duration, bytes: u64, bytes_per_second: u64) -> Duration {
        if bytes_per_second == 0 {
            self.paid_at = now;
            return Duration::ZERO;
        }
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.paid_at = self.paid_at.max(now.saturating_sub(BURST)).saturating_add(cost);
        self.paid_at.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_limit_is_kept_and_can_be_lifted() {
        let mut bucket = Bucket::default();
        let second = Duration::from_secs(1);
        assert_eq!(bucket.take(second, 1 << 20, 0), Duration::ZERO);
        assert_eq!(bucket.take(second, 1000, 1000), second, "what was not limited left nothing behind");
        assert_eq!(bucket.take(second * 2, 500, 1000), second / 2);
        assert_eq!(bucket.take(second * 2, 1 << 40, 0), Duration::ZERO);
    }

    proptest! {
        /// Whoever waits as told never gets more than the rate and one burst, and loses little of it.
        #[test]
        fn the_rate_holds_over_any_stretch(pieces in proptest::collection::vec((1u64..1 << 20, 0u64..50), 1..200)) {
            const RATE: u64 = 1 << 20;
            let (mut bucket, mut now, mut taken) = (Bucket::default(), Duration::from_secs(9), 0);
            let begin = now;
            let mut idle = Duration::ZERO;
            for (bytes, pause_ms) in pieces {
                taken += bytes;
                let pause = Duration::from_millis(pause_ms);
                now += bucket.take(now, bytes, RATE) + pause;
                idle += pause;
            }
            let allowed = ((now - begin) + BURST).as_secs_f64() * RATE as f64;
            prop_assert!(taken as f64 <= allowed + 1.0, "{taken} of {allowed}");
            let least = ((now - begin).saturating_sub(idle)).as_secs_f64() * RATE as f64;
            prop_assert!(taken as f64 + 1.0 >= least, "{taken} of {least}");
        }
    }
}

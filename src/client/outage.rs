//! Somebody watches a long command: that its cluster is not reached is told once, and that it is again.

use super::error::ClientError;
use std::time::{Duration, Instant};

/// A stretch of attempts that failed, and whether it was told.
#[derive(Debug, Default)]
pub struct Outage {
    since: Option<Instant>,
    told: bool,
}

/// A leader or coordinator that moves is found again sooner than that, and no news.
const MOVES_WITHIN: Duration = Duration::from_secs(1);

impl Outage {
    /// An attempt failed, and others will be made until `retry_for` is over. What to tell: at once where nobody answers, after
    /// a while where an answer says "not here, not now".
    pub fn fails(&mut self, error: &ClientError, now: Instant, retry_for: Duration) -> Option<String> {
        let since = *self.since.get_or_insert(now);
        let is_silent = error.code().is_none() || now.duration_since(since) >= MOVES_WITHIN;
        if self.told || !error.retriable() || !is_silent {
            return None;
        }
        self.told = true;
        Some(format!("{error}; trying again, for {retry_for:?} at most"))
    }

    /// An attempt succeeded.
    pub fn ends(&mut self, now: Instant) -> Option<String> {
        let since = self.since.take()?;
        std::mem::take(&mut self.told).then(|| format!("it works again, after {:.1} s", (now - since).as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::error::ResponseError;

    #[test]
    fn an_outage_is_told_once_and_so_is_its_end() {
        let (start, most) = (Instant::now(), Duration::from_secs(30));
        let at = |ms| start + Duration::from_millis(ms);
        let gone = ClientError::Closed { addr: "b:1".to_owned(), doing: "fetching".to_owned() };
        let mut outage = Outage::default();
        assert_eq!(outage.ends(at(0)), None, "nothing was wrong");
        let told = outage.fails(&gone, at(0), most);
        assert_eq!(told.as_deref(), Some("b:1 closed the connection while fetching; trying again, for 30s at most"));
        assert_eq!(outage.fails(&gone, at(200), most), None);
        assert_eq!(outage.ends(at(1500)).as_deref(), Some("it works again, after 1.5 s"));
        assert_eq!(outage.ends(at(1600)), None);
        let moved = ClientError::like(ResponseError::NotLeaderOrFollower, "t-0", "");
        assert_eq!(outage.fails(&moved, at(2000), most), None, "it moves");
        assert_eq!(outage.ends(at(2200)), None, "nothing was told");
        assert_eq!(outage.fails(&moved, at(3000), most), None);
        assert!(outage.fails(&moved, at(4000), most).is_some(), "it stays away");
        let last = ClientError::Invalid("nonsense".to_owned());
        assert_eq!(Outage::default().fails(&last, at(0), most), None, "nothing is tried again");
    }
}

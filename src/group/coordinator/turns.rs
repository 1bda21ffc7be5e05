//! Work in the background about all groups of a partition, which must not keep requests waiting.

use super::store::Stored;
use crate::base::limits::{FORGETTING_APPENDS_MAX, GROUPS_LOOKED_AT_MAX};
use std::time::Duration;
use tracing::warn;

/// Between two turns. A sleep, since io_uring operations are only submitted while the thread parks.
const PAUSE: Duration = Duration::from_millis(1);

/// How much was done since requests had their turn.
#[derive(Default)]
pub struct Turns {
    looked_at: usize,
    under_way: Vec<Stored>,
}

impl Turns {
    /// A group was looked at, with so many offsets, and this is what became of it. Ends when the next may be.
    pub async fn took(&mut self, offsets: usize, stored: Stored) {
        self.looked_at += 1 + offsets;
        if !stored.is_nothing() {
            self.under_way.push(stored);
        }
        if self.under_way.len() >= FORGETTING_APPENDS_MAX {
            self.end().await;
        }
        if self.looked_at >= GROUPS_LOOKED_AT_MAX {
            self.looked_at = 0;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Ends when all that was appended is stored.
    pub async fn end(&mut self) {
        for stored in self.under_way.drain(..) {
            if let Err(error) = stored.done().await {
                warn!("what was forgotten about groups is not stored, and may come back: {error:?}");
            }
        }
    }
}

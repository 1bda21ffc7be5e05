//! A watch: the store's changes below a path, in order, as a bounded stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

use crate::base::limits::STORE_WATCH_EVENTS_MAX;

/// What happened to one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeEvent {
    Created(String),
    DataChanged(String),
    Deleted(String),
}

impl NodeEvent {
    pub fn path(&self) -> &str {
        match self {
            NodeEvent::Created(path) | NodeEvent::DataChanged(path) | NodeEvent::Deleted(path) => path,
        }
    }
}

/// What a watch reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    Node(NodeEvent),
    /// Changes may have been missed (a broken connection, or a reader that fell behind): read again what matters.
    /// Events after this one are complete once more.
    Missed,
    /// The session is over; nothing follows.
    Expired,
}

/// The reader's end.
pub struct Watch {
    events: mpsc::Receiver<WatchEvent>,
    missed: Arc<AtomicBool>,
}

/// The store's end.
pub struct WatchSender {
    events: mpsc::Sender<WatchEvent>,
    missed: Arc<AtomicBool>,
}

impl Watch {
    pub fn channel() -> (WatchSender, Watch) {
        let (sender, receiver) = mpsc::channel(STORE_WATCH_EVENTS_MAX);
        let missed = Arc::new(AtomicBool::new(false));
        (WatchSender { events: sender, missed: Arc::clone(&missed) }, Watch { events: receiver, missed })
    }

    /// The next event; after the session's end always `Expired`. May be dropped while it waits without losing one.
    pub async fn next(&mut self) -> WatchEvent {
        match self.events.try_recv() {
            Ok(event) => event,
            Err(_) if self.missed.swap(false, Ordering::Relaxed) => WatchEvent::Missed,
            Err(_) => self.events.recv().await.unwrap_or(WatchEvent::Expired),
        }
    }
}

impl WatchSender {
    /// False: nobody reads any more.
    pub fn send(&self, event: WatchEvent) -> bool {
        // After the first event that did not fit, none is queued until the reader has seen `Missed`: the reader would
        // otherwise take what comes after the gap for what comes next.
        if self.missed.load(Ordering::Relaxed) {
            return !self.events.is_closed();
        }
        match self.events.try_send(event) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.missed.store(true, Ordering::Relaxed);
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_that_falls_behind_is_told_so() {
        let (sender, mut watch) = Watch::channel();
        let event = |n: usize| WatchEvent::Node(NodeEvent::Created(format!("/{n}")));
        for n in 0..STORE_WATCH_EVENTS_MAX + 10 {
            assert!(sender.send(event(n)));
        }
        for n in 0..STORE_WATCH_EVENTS_MAX {
            assert_eq!(watch.next().await, event(n));
        }
        assert_eq!(watch.next().await, WatchEvent::Missed);
        sender.send(event(7));
        assert_eq!(watch.next().await, event(7));
        drop(sender);
        assert_eq!(watch.next().await, WatchEvent::Expired);
    }
}

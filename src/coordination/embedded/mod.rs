//! The store of a single node: the tree in memory, its journal in a log directory.
//!
//! It answers on the control plane's thread and blocks it while the disk syncs (a fraction of a millisecond to a few):
//! changes of topics are rare, and one `multi` carries many of them.

mod codec;
mod journal;

pub use codec::Record;
pub use journal::{Inspected, JournalError, inspect};

use super::tree::{Change, Tree, Txn};
use super::watch::{NodeEvent, Watch, WatchEvent, WatchSender};
use super::{Coordination, MultiError, Op, OpResult, SessionId, Stat, StoreError, check_path, check_request};
use crate::base::clock::now_ms;
use crate::base::limits::STORE_FILE_BYTES_MAX;
use bytes::Bytes;
use journal::Journal;
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

/// The store's file, made in the first log directory: a plain file, since Apache Kafka, which must be able to open the
/// same directories, takes every sub-directory for a partition.
pub const FILE_NAME: &str = "corelog-store.journal";

/// An open store. At most one may be open on a file: the node locks its directories.
#[derive(Clone)]
pub struct EmbeddedStore {
    inner: Rc<RefCell<Inner>>,
}

/// A session with an embedded store. It lasts until it is closed or expired; a crash ends it too, since opening the
/// file ends all sessions of its past.
#[derive(Clone)]
pub struct EmbeddedSession {
    inner: Rc<RefCell<Inner>>,
    id: SessionId,
}

struct Inner {
    tree: Tree,
    journal: Journal,
    watches: Vec<Watcher>,
    live: Vec<SessionId>,
    next_session: u64,
    /// Set by the first write that failed: memory is then ahead of the disk, and nothing is answered any more.
    failed: Option<String>,
}

struct Watcher {
    session: SessionId,
    path: String,
    events: WatchSender,
}

impl EmbeddedStore {
    /// Opens the store in `file`, or creates it. Ephemeral nodes of an earlier process are deleted.
    pub fn open(file: &Path) -> Result<EmbeddedStore, JournalError> {
        let (journal, tree) = Journal::open(file)?;
        let old = tree.sessions();
        let next_session = old.iter().map(|session| session.0).max().unwrap_or(0) + 1;
        let mut inner = Inner { tree, journal, watches: Vec::new(), live: Vec::new(), next_session, failed: None };
        for session in old {
            inner.commit(session, Change::CloseSession).map_err(|error| JournalError::Io {
                path: file.to_path_buf(),
                action: "ending the sessions of an earlier run",
                source: std::io::Error::other(error.error),
            })?;
        }
        Ok(EmbeddedStore { inner: Rc::new(RefCell::new(inner)) })
    }

    /// A new session.
    pub fn connect(&self) -> EmbeddedSession {
        let mut inner = self.inner.borrow_mut();
        let id = SessionId(inner.next_session);
        inner.next_session += 1;
        inner.live.push(id);
        EmbeddedSession { inner: Rc::clone(&self.inner), id }
    }

    /// Ends a session from outside, as an ensemble does with a client that it does not hear any more.
    pub fn expire(&self, session: SessionId) -> Result<(), StoreError> {
        self.inner.borrow_mut().end_session(session)
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.inner.borrow().journal.length()
    }
}

impl Coordination for EmbeddedSession {
    fn session(&self) -> SessionId {
        self.id
    }

    async fn multi(&self, ops: Vec<Op>) -> Result<Vec<OpResult>, MultiError> {
        let mut inner = self.inner.borrow_mut();
        inner.check_session(self.id).map_err(|error| MultiError { index: 0, error })?;
        check_request(&ops)?;
        inner.commit(self.id, Change::Multi(ops))
    }

    async fn get(&self, path: &str) -> Result<(Bytes, Stat), StoreError> {
        let inner = self.inner.borrow();
        inner.check_session(self.id)?;
        inner.tree.get(path)
    }

    async fn children(&self, path: &str) -> Result<Vec<String>, StoreError> {
        let inner = self.inner.borrow();
        inner.check_session(self.id)?;
        inner.tree.children(path)
    }

    async fn watch(&self, path: &str) -> Result<Watch, StoreError> {
        check_path(path)?;
        let mut inner = self.inner.borrow_mut();
        inner.check_session(self.id)?;
        let (events, watch) = Watch::channel();
        inner.watches.push(Watcher { session: self.id, path: path.to_string(), events });
        Ok(watch)
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.borrow_mut().end_session(self.id)
    }
}

impl Inner {
    fn check_session(&self, session: SessionId) -> Result<(), StoreError> {
        if let Some(reason) = &self.failed {
            return Err(StoreError::Failed(reason.clone()));
        }
        if self.live.contains(&session) { Ok(()) } else { Err(StoreError::SessionExpired) }
    }

    /// Applies a change, makes it durable, tells the watches; in this order, so that nobody hears of what a crash
    /// could still undo.
    fn commit(&mut self, session: SessionId, change: Change) -> Result<Vec<OpResult>, MultiError> {
        let whole = |error| MultiError { index: 0, error };
        if self.journal.length() > STORE_FILE_BYTES_MAX {
            let bytes = self.journal.length() as usize;
            return Err(whole(StoreError::Full { bytes, max: STORE_FILE_BYTES_MAX as usize }));
        }
        let closing = match &change {
            Change::CloseSession => self.tree.ephemerals(session),
            Change::Multi(_) => Vec::new(),
        };
        let txn = Txn { zxid: self.tree.zxid() + 1, time_ms: now_ms(), session, change };
        let record = Journal::encode(&txn);
        // While nothing has changed yet: afterwards memory would be ahead of the disk.
        self.journal.reserve(record.len()).map_err(|error| whole(StoreError::NoSpace(error.to_string())))?;
        let results = self.tree.apply(&txn)?;
        self.journal.append(&record).map_err(|error| whole(self.fail(format!("writing its journal: {error}"))))?;
        self.tell(&txn, &results, closing);
        if self.journal.wants_rewrite() {
            self.journal.rewrite(&self.tree).map_err(|error| whole(self.fail(error.to_string())))?;
        }
        Ok(results)
    }

    fn end_session(&mut self, session: SessionId) -> Result<(), StoreError> {
        self.check_session(session)?;
        if !self.tree.ephemerals(session).is_empty() {
            self.commit(session, Change::CloseSession).map_err(|error| error.error)?;
        }
        self.live.retain(|live| *live != session);
        for watcher in self.watches.extract_if(.., |watcher| watcher.session == session) {
            watcher.events.send(WatchEvent::Expired);
        }
        Ok(())
    }

    fn fail(&mut self, reason: String) -> StoreError {
        tracing::error!(reason, "the coordination store has failed");
        self.failed = Some(reason.clone());
        StoreError::Failed(reason)
    }

    fn tell(&mut self, txn: &Txn, results: &[OpResult], closing: Vec<String>) {
        if self.watches.is_empty() {
            return;
        }
        let mut events: Vec<NodeEvent> = closing.into_iter().map(NodeEvent::Deleted).collect();
        if let Change::Multi(ops) = &txn.change {
            events.extend(ops.iter().zip(results).filter_map(|(op, result)| event_of(op, result)));
        }
        for event in events {
            self.watches.retain(|watcher| {
                !covers(&watcher.path, event.path()) || watcher.events.send(WatchEvent::Node(event.clone()))
            });
        }
    }
}

fn event_of(op: &Op, result: &OpResult) -> Option<NodeEvent> {
    match (op, result) {
        (_, OpResult::Create { path, .. }) => Some(NodeEvent::Created(path.clone())),
        (Op::Set { path, .. }, _) => Some(NodeEvent::DataChanged(path.clone())),
        (Op::Delete { path, .. }, _) => Some(NodeEvent::Deleted(path.clone())),
        _ => None,
    }
}

fn covers(watched: &str, path: &str) -> bool {
    watched == "/" || path.strip_prefix(watched).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests;

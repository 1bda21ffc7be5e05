//! The coordination store: a small tree of versioned nodes with ZooKeeper's semantics, where the cluster's facts live.
//!
//! The semantics are ZooKeeper's own, so that a real ensemble and the embedded store of a single node serve the same
//! controller: changes are totally ordered (each has a zxid), `multi` is atomic, an expected version makes a change
//! conditional, ephemeral nodes go with their session, and a watch reports changes in order.
//!
//! Stores are used from one thread (the control plane's), so nothing here is `Send` by design.

pub mod embedded;
pub mod tree;
mod watch;

pub use watch::{NodeEvent, Watch, WatchEvent, WatchSender};

use crate::base::limits::{STORE_PATH_BYTES_MAX, STORE_REQUEST_BYTES_MAX};
use bytes::Bytes;
use embedded::EmbeddedSession;
use thiserror::Error;

/// A change's number in the store's total order.
pub type Zxid = u64;

/// One client's session; its ephemeral nodes vanish when it ends. 0 is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What is known of a node besides its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The change that created it. A broker's epoch is the czxid of its id node.
    pub czxid: Zxid,
    /// The last change of its data.
    pub mzxid: Zxid,
    /// The last change of its set of children.
    pub pzxid: Zxid,
    pub ctime_ms: i64,
    pub mtime_ms: i64,
    /// Changes of its data since it was created.
    pub version: i32,
    /// Changes of its set of children.
    pub cversion: i32,
    pub ephemeral_owner: Option<SessionId>,
    pub data_length: usize,
    pub children: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateMode {
    Persistent,
    Ephemeral,
    /// The name gets a ten-digit number that grows with every creation under the parent.
    PersistentSequential,
    EphemeralSequential,
}

impl CreateMode {
    pub fn is_ephemeral(self) -> bool {
        matches!(self, CreateMode::Ephemeral | CreateMode::EphemeralSequential)
    }

    pub fn is_sequential(self) -> bool {
        matches!(self, CreateMode::PersistentSequential | CreateMode::EphemeralSequential)
    }
}

/// One step of a `multi`. `version: None` means any (ZooKeeper's -1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Create { path: String, data: Bytes, mode: CreateMode },
    Set { path: String, data: Bytes, version: Option<i32> },
    Delete { path: String, version: Option<i32> },
    Check { path: String, version: i32 },
}

impl Op {
    pub fn create(path: impl Into<String>, data: impl Into<Bytes>, mode: CreateMode) -> Op {
        Op::Create { path: path.into(), data: data.into(), mode }
    }

    pub fn set(path: impl Into<String>, data: impl Into<Bytes>, version: Option<i32>) -> Op {
        Op::Set { path: path.into(), data: data.into(), version }
    }

    pub fn delete(path: impl Into<String>, version: Option<i32>) -> Op {
        Op::Delete { path: path.into(), version }
    }

    pub fn check(path: impl Into<String>, version: i32) -> Op {
        Op::Check { path: path.into(), version }
    }

    pub fn path(&self) -> &str {
        match self {
            Op::Create { path, .. } | Op::Set { path, .. } | Op::Delete { path, .. } | Op::Check { path, .. } => path,
        }
    }

    /// Bytes that the step takes in a request, with room for its framing (ZooKeeper's, which is the larger).
    pub fn request_bytes(&self) -> usize {
        const FRAMING: usize = 64;
        let data = match self {
            Op::Create { data, .. } | Op::Set { data, .. } => data.len(),
            Op::Delete { .. } | Op::Check { .. } => 0,
        };
        FRAMING + self.path().len() + data
    }
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// The path as created: with its number, where it is sequential.
    Create {
        path: String,
        stat: Stat,
    },
    Set(Stat),
    Delete,
    Check,
}

/// Why the store refused, or could not answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    #[error("no such node")]
    NoNode,
    #[error("the node exists already")]
    NodeExists,
    #[error("the node has another version than expected")]
    BadVersion,
    #[error("the node has children")]
    NotEmpty,
    #[error("an ephemeral node cannot have children")]
    NoChildrenForEphemerals,
    #[error("not a valid path or argument: {0}")]
    BadArguments(String),
    #[error("the request takes {bytes} bytes, more than the {max} allowed")]
    TooLarge { bytes: usize, max: usize },
    #[error("the store holds {bytes} bytes, and no more than {max} are allowed")]
    Full { bytes: usize, max: usize },
    /// The disk has no space for the change; nothing was changed.
    #[error("there is no space for it: {0}")]
    NoSpace(String),
    /// The connection broke before the answer: a change **may or may not** have been made. Read before deciding.
    #[error("the connection to the store was lost before it answered")]
    ConnectionLoss,
    /// The store does not answer now; nothing was changed.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The session is over, its ephemeral nodes are gone; only a new session helps.
    #[error("the session has expired")]
    SessionExpired,
    /// The store cannot go on: its disk failed. What was answered before holds.
    #[error("the store has failed: {0}")]
    Failed(String),
}

/// A refused `multi`: nothing of it was applied.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("step {index}: {error}")]
pub struct MultiError {
    /// The step that was refused; 0 where the request as a whole was.
    pub index: usize,
    pub error: StoreError,
}

/// One session with a coordination store.
#[allow(async_fn_in_trait, reason = "a session stays on the control plane's thread: its futures need not be Send")]
pub trait Coordination {
    fn session(&self) -> SessionId;

    /// Applies all steps, or none. At most `STORE_REQUEST_BYTES_MAX` in all, as one ZooKeeper request.
    async fn multi(&self, ops: Vec<Op>) -> Result<Vec<OpResult>, MultiError>;

    async fn get(&self, path: &str) -> Result<(Bytes, Stat), StoreError>;

    /// The names (not paths) of the node's children.
    async fn children(&self, path: &str) -> Result<Vec<String>, StoreError>;

    /// Reports every later change at or below `path`, which need not exist, in the store's order
    /// (ZooKeeper's persistent recursive watch).
    async fn watch(&self, path: &str) -> Result<Watch, StoreError>;

    /// Ends the session: its ephemeral nodes are deleted before this returns.
    async fn close(&self) -> Result<(), StoreError>;

    /// The path as created, with the node's stat.
    async fn create(&self, path: &str, data: Bytes, mode: CreateMode) -> Result<(String, Stat), StoreError> {
        match self.single(Op::create(path, data, mode)).await? {
            OpResult::Create { path, stat } => Ok((path, stat)),
            other => unreachable!("a create was answered by {other:?}"),
        }
    }

    async fn set(&self, path: &str, data: Bytes, version: Option<i32>) -> Result<Stat, StoreError> {
        match self.single(Op::set(path, data, version)).await? {
            OpResult::Set(stat) => Ok(stat),
            other => unreachable!("a set was answered by {other:?}"),
        }
    }

    async fn delete(&self, path: &str, version: Option<i32>) -> Result<(), StoreError> {
        self.single(Op::delete(path, version)).await.map(|_| ())
    }

    async fn exists(&self, path: &str) -> Result<Option<Stat>, StoreError> {
        match self.get(path).await {
            Ok((_, stat)) => Ok(Some(stat)),
            Err(StoreError::NoNode) => Ok(None),
            Err(error) => Err(error),
        }
    }

    #[doc(hidden)]
    async fn single(&self, op: Op) -> Result<OpResult, StoreError> {
        let mut results = self.multi(vec![op]).await.map_err(|error| error.error)?;
        Ok(results.pop().expect("one step has one result"))
    }
}

/// A session with whichever store the node was given.
pub enum Store {
    Embedded(EmbeddedSession),
}

impl Coordination for Store {
    fn session(&self) -> SessionId {
        match self {
            Store::Embedded(store) => store.session(),
        }
    }

    async fn multi(&self, ops: Vec<Op>) -> Result<Vec<OpResult>, MultiError> {
        match self {
            Store::Embedded(store) => store.multi(ops).await,
        }
    }

    async fn get(&self, path: &str) -> Result<(Bytes, Stat), StoreError> {
        match self {
            Store::Embedded(store) => store.get(path).await,
        }
    }

    async fn children(&self, path: &str) -> Result<Vec<String>, StoreError> {
        match self {
            Store::Embedded(store) => store.children(path).await,
        }
    }

    async fn watch(&self, path: &str) -> Result<Watch, StoreError> {
        match self {
            Store::Embedded(store) => store.watch(path).await,
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        match self {
            Store::Embedded(store) => store.close().await,
        }
    }
}

/// ZooKeeper's rules for a path: absolute, no empty, `.` or `..` part, no trailing slash, no control characters.
pub fn check_path(path: &str) -> Result<(), StoreError> {
    let refuse = |why: &str| Err(StoreError::BadArguments(format!("path {why}: {:.100}", path.escape_debug())));
    if path.len() > STORE_PATH_BYTES_MAX {
        return refuse("is too long");
    }
    if path == "/" {
        return Ok(());
    }
    let Some(relative) = path.strip_prefix('/') else {
        return refuse("does not start with /");
    };
    if relative.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return refuse("has an empty or relative part");
    }
    if path.chars().any(char::is_control) {
        return refuse("has a control character");
    }
    Ok(())
}

/// The bound on one request, the same for every store so that what works with one works with all.
pub fn check_request(ops: &[Op]) -> Result<(), MultiError> {
    let bytes = ops.iter().map(Op::request_bytes).sum();
    if bytes > STORE_REQUEST_BYTES_MAX {
        return Err(MultiError { index: 0, error: StoreError::TooLarge { bytes, max: STORE_REQUEST_BYTES_MAX } });
    }
    Ok(())
}

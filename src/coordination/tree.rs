//! The tree itself: pure, without clock or disk. A change is applied whole or not at all.

use super::{CreateMode, MultiError, Op, OpResult, SessionId, Stat, StoreError, Zxid, check_path};
use crate::base::limits::STORE_TREE_BYTES_MAX;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// One change in the store's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// Must be the tree's last zxid plus one.
    pub zxid: Zxid,
    pub time_ms: i64,
    pub session: SessionId,
    pub change: Change,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Multi(Vec<Op>),
    /// Deletes the ephemeral nodes of `Txn::session`.
    CloseSession,
}

/// A tree of versioned nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tree {
    root: Node,
    zxid: Zxid,
    /// An estimate of the memory held: data, names and a fixed part for each node.
    bytes: usize,
    ephemerals: BTreeMap<SessionId, BTreeSet<String>>,
}

/// A node as a snapshot keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    pub path: String,
    pub data: Bytes,
    pub meta: Meta,
}

/// What a node carries besides data and children.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    pub czxid: Zxid,
    pub mzxid: Zxid,
    pub pzxid: Zxid,
    pub ctime_ms: i64,
    pub mtime_ms: i64,
    pub version: i32,
    /// Children ever created; the next sequential child's number.
    pub creations: i32,
    /// 0: persistent.
    pub owner: u64,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Node {
    data: Bytes,
    meta: Meta,
    // Boxed: a BTreeMap leaf has room for eleven values, and most nodes have one child at most.
    children: BTreeMap<Box<str>, Box<Node>>,
}

/// How to take one step back.
enum Undo {
    Created { path: String, parent: Meta },
    Set { path: String, data: Bytes, meta: Meta },
    Deleted { path: String, node: Box<Node>, parent: Meta },
}

/// Bytes that a node costs besides its data and name.
const NODE_BYTES: usize = 256;

impl Tree {
    /// The last change applied.
    pub fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// Bytes held, by estimate.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn get(&self, path: &str) -> Result<(Bytes, Stat), StoreError> {
        check_path(path)?;
        let node = self.find(path).ok_or(StoreError::NoNode)?;
        Ok((node.data.clone(), node.stat()))
    }

    pub fn children(&self, path: &str) -> Result<Vec<String>, StoreError> {
        check_path(path)?;
        let node = self.find(path).ok_or(StoreError::NoNode)?;
        Ok(node.children.keys().map(|name| name.to_string()).collect())
    }

    /// Sessions that own a node.
    pub fn sessions(&self) -> Vec<SessionId> {
        self.ephemerals.keys().copied().collect()
    }

    /// Paths of the ephemeral nodes of a session.
    pub fn ephemerals(&self, session: SessionId) -> Vec<String> {
        self.ephemerals.get(&session).map(|paths| paths.iter().cloned().collect()).unwrap_or_default()
    }

    /// Applies a change; when it is refused, the tree is as it was.
    pub fn apply(&mut self, txn: &Txn) -> Result<Vec<OpResult>, MultiError> {
        assert_eq!(txn.zxid, self.zxid + 1, "changes are applied in order");
        let results = match &txn.change {
            Change::Multi(ops) => self.apply_ops(txn, ops)?,
            Change::CloseSession => {
                let paths = self.ephemerals(txn.session);
                let ops: Vec<Op> = paths.into_iter().map(|path| Op::delete(path, None)).collect();
                self.apply_ops(txn, &ops)?
            }
        };
        self.zxid = txn.zxid;
        Ok(results)
    }

    /// Every node, parents before children; what `restore` takes.
    pub fn for_each(&self, mut visit: impl FnMut(NodeRecord)) {
        visit_node(&self.root, "", &mut visit);
    }

    /// Builds a tree from what `for_each` gave, in the same order.
    pub fn restore(zxid: Zxid, records: impl IntoIterator<Item = NodeRecord>) -> Result<Tree, StoreError> {
        let mut tree = Tree { zxid, ..Tree::default() };
        for record in records {
            tree.restore_node(record)?;
        }
        Ok(tree)
    }

    /// Panics where the tree contradicts itself; for tests.
    pub fn check_invariants(&self) {
        let mut bytes = 0;
        let mut ephemerals: BTreeMap<SessionId, BTreeSet<String>> = BTreeMap::new();
        self.for_each(|record| {
            let Meta { czxid, mzxid, pzxid, version, creations, owner, .. } = record.meta;
            assert!(czxid <= mzxid && mzxid <= self.zxid && pzxid <= self.zxid, "{}", record.path);
            assert!(version >= 0 && creations >= 0, "{}", record.path);
            let children = self.find(&record.path).expect("visited").children.len();
            assert!(children <= creations as usize, "{}: more children than creations", record.path);
            if owner != 0 {
                assert_eq!(children, 0, "{}: an ephemeral node has children", record.path);
                ephemerals.entry(SessionId(owner)).or_default().insert(record.path.clone());
            }
            if record.path != "/" {
                bytes += node_bytes(&record.path, &record.data);
            } else {
                bytes += record.data.len();
            }
        });
        assert_eq!(bytes, self.bytes);
        assert_eq!(ephemerals, self.ephemerals);
    }

    fn apply_ops(&mut self, txn: &Txn, ops: &[Op]) -> Result<Vec<OpResult>, MultiError> {
        let mut results = Vec::with_capacity(ops.len());
        let mut undo = Vec::with_capacity(ops.len());
        for (index, op) in ops.iter().enumerate() {
            match self.step(txn, op, &mut undo) {
                Ok(result) => results.push(result),
                Err(error) => {
                    undo.into_iter().rev().for_each(|step| self.take_back(step));
                    return Err(MultiError { index, error });
                }
            }
        }
        Ok(results)
    }

    fn step(&mut self, txn: &Txn, op: &Op, undo: &mut Vec<Undo>) -> Result<OpResult, StoreError> {
        check_path(op.path())?;
        match op {
            Op::Create { path, data, mode } => self.create(txn, path, data, *mode, undo),
            Op::Set { path, data, version } => self.set(txn, path, data, *version, undo),
            Op::Delete { path, version } => self.delete(txn, path, *version, undo),
            Op::Check { path, version } => {
                self.find(path).ok_or(StoreError::NoNode)?.check_version(Some(*version))?;
                Ok(OpResult::Check)
            }
        }
    }

    fn create(
        &mut self,
        txn: &Txn,
        path: &str,
        data: &Bytes,
        mode: CreateMode,
        undo: &mut Vec<Undo>,
    ) -> Result<OpResult, StoreError> {
        let Some((parent_path, name)) = split(path) else {
            return Err(StoreError::NodeExists);
        };
        if self.bytes + node_bytes(path, data) > STORE_TREE_BYTES_MAX {
            return Err(StoreError::Full { bytes: self.bytes, max: STORE_TREE_BYTES_MAX });
        }
        let parent = self.find_mut(parent_path).ok_or(StoreError::NoNode)?;
        if parent.meta.owner != 0 {
            return Err(StoreError::NoChildrenForEphemerals);
        }
        let (path, name) = if mode.is_sequential() {
            let number = parent.meta.creations;
            (format!("{path}{number:010}"), format!("{name}{number:010}"))
        } else {
            (path.to_string(), name.to_string())
        };
        if parent.children.contains_key(name.as_str()) {
            return Err(StoreError::NodeExists);
        }
        let owner = if mode.is_ephemeral() { txn.session.0 } else { 0 };
        let meta = Meta {
            czxid: txn.zxid,
            mzxid: txn.zxid,
            pzxid: txn.zxid,
            ctime_ms: txn.time_ms,
            mtime_ms: txn.time_ms,
            owner,
            ..Meta::default()
        };
        let node = Box::new(Node { data: data.clone(), meta, children: BTreeMap::new() });
        let stat = node.stat();
        let before = parent.meta;
        parent.children.insert(name.into(), node);
        parent.meta.creations = parent.meta.creations.wrapping_add(1).max(0);
        parent.meta.pzxid = txn.zxid;
        self.bytes += node_bytes(&path, data);
        if owner != 0 {
            self.ephemerals.entry(txn.session).or_default().insert(path.clone());
        }
        undo.push(Undo::Created { path: path.clone(), parent: before });
        Ok(OpResult::Create { path, stat })
    }

    fn set(
        &mut self,
        txn: &Txn,
        path: &str,
        data: &Bytes,
        version: Option<i32>,
        undo: &mut Vec<Undo>,
    ) -> Result<OpResult, StoreError> {
        let held = self.bytes;
        let node = self.find_mut(path).ok_or(StoreError::NoNode)?;
        node.check_version(version)?;
        let bytes = held - node.data.len() + data.len();
        if bytes > STORE_TREE_BYTES_MAX {
            return Err(StoreError::Full { bytes: held, max: STORE_TREE_BYTES_MAX });
        }
        let before = std::mem::replace(&mut node.data, data.clone());
        undo.push(Undo::Set { path: path.to_string(), data: before, meta: node.meta });
        node.meta.version = node.meta.version.wrapping_add(1).max(0);
        node.meta.mzxid = txn.zxid;
        node.meta.mtime_ms = txn.time_ms;
        let stat = node.stat();
        self.bytes = bytes;
        Ok(OpResult::Set(stat))
    }

    fn delete(
        &mut self,
        txn: &Txn,
        path: &str,
        version: Option<i32>,
        undo: &mut Vec<Undo>,
    ) -> Result<OpResult, StoreError> {
        let Some((parent_path, name)) = split(path) else {
            return Err(StoreError::BadArguments("the root cannot be deleted".into()));
        };
        let parent = self.find_mut(parent_path).ok_or(StoreError::NoNode)?;
        let node = parent.children.get(name).ok_or(StoreError::NoNode)?;
        node.check_version(version)?;
        if !node.children.is_empty() {
            return Err(StoreError::NotEmpty);
        }
        let before = parent.meta;
        let node = parent.children.remove(name).expect("found above");
        parent.meta.pzxid = txn.zxid;
        self.bytes -= node_bytes(path, &node.data);
        self.forget_ephemeral(path, node.meta.owner);
        undo.push(Undo::Deleted { path: path.to_string(), node, parent: before });
        Ok(OpResult::Delete)
    }

    fn take_back(&mut self, undo: Undo) {
        match undo {
            Undo::Created { path, parent: before } => {
                let (parent_path, name) = split(&path).expect("the root is never created");
                let parent = self.find_mut(parent_path).expect("undone in reverse");
                let node = parent.children.remove(name).expect("undone in reverse");
                parent.meta = before;
                self.bytes -= node_bytes(&path, &node.data);
                self.forget_ephemeral(&path, node.meta.owner);
            }
            Undo::Set { path, data, meta } => {
                let node = self.find_mut(&path).expect("undone in reverse");
                let old = data.len();
                let new = std::mem::replace(&mut node.data, data).len();
                node.meta = meta;
                self.bytes = self.bytes - new + old;
            }
            Undo::Deleted { path, node, parent: before } => {
                let owner = node.meta.owner;
                self.bytes += node_bytes(&path, &node.data);
                let (parent_path, name) = split(&path).expect("the root is never deleted");
                let parent = self.find_mut(parent_path).expect("undone in reverse");
                parent.children.insert(name.into(), node);
                parent.meta = before;
                if owner != 0 {
                    self.ephemerals.entry(SessionId(owner)).or_default().insert(path);
                }
            }
        }
    }

    fn restore_node(&mut self, record: NodeRecord) -> Result<(), StoreError> {
        check_path(&record.path)?;
        let NodeRecord { path, data, meta } = record;
        let Some((parent_path, name)) = split(&path) else {
            self.bytes += data.len();
            self.root.data = data;
            self.root.meta = meta;
            return Ok(());
        };
        let bytes = node_bytes(&path, &data);
        let parent = self.find_mut(parent_path).ok_or(StoreError::NoNode)?;
        let node = Box::new(Node { data, meta, children: BTreeMap::new() });
        if parent.children.insert(name.into(), node).is_some() {
            return Err(StoreError::NodeExists);
        }
        self.bytes += bytes;
        if meta.owner != 0 {
            self.ephemerals.entry(SessionId(meta.owner)).or_default().insert(path);
        }
        Ok(())
    }

    fn forget_ephemeral(&mut self, path: &str, owner: u64) {
        let session = SessionId(owner);
        if let Some(paths) = self.ephemerals.get_mut(&session) {
            paths.remove(path);
            if paths.is_empty() {
                self.ephemerals.remove(&session);
            }
        }
    }

    fn find(&self, path: &str) -> Option<&Node> {
        parts(path).try_fold(&self.root, |node, part| node.children.get(part).map(Box::as_ref))
    }

    fn find_mut(&mut self, path: &str) -> Option<&mut Node> {
        parts(path).try_fold(&mut self.root, |node, part| node.children.get_mut(part).map(Box::as_mut))
    }
}

impl Node {
    fn check_version(&self, expected: Option<i32>) -> Result<(), StoreError> {
        match expected {
            Some(version) if version != self.meta.version => Err(StoreError::BadVersion),
            _ => Ok(()),
        }
    }

    fn stat(&self) -> Stat {
        let children = self.children.len();
        Stat {
            czxid: self.meta.czxid,
            mzxid: self.meta.mzxid,
            pzxid: self.meta.pzxid,
            ctime_ms: self.meta.ctime_ms,
            mtime_ms: self.meta.mtime_ms,
            version: self.meta.version,
            // Creations plus deletions, of which only creations are kept: what is not here any more was deleted.
            cversion: self.meta.creations.wrapping_mul(2).wrapping_sub(children as i32),
            ephemeral_owner: (self.meta.owner != 0).then_some(SessionId(self.meta.owner)),
            data_length: self.data.len(),
            children,
        }
    }
}

fn visit_node(node: &Node, path: &str, visit: &mut impl FnMut(NodeRecord)) {
    let own = if path.is_empty() { "/" } else { path };
    visit(NodeRecord { path: own.to_string(), data: node.data.clone(), meta: node.meta });
    for (name, child) in &node.children {
        visit_node(child, &format!("{path}/{name}"), visit);
    }
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

/// Parent path and name; None for the root.
fn split(path: &str) -> Option<(&str, &str)> {
    let (parent, name) = path.rsplit_once('/')?;
    (!name.is_empty()).then_some((parent, name))
}

fn node_bytes(path: &str, data: &Bytes) -> usize {
    let name = path.rsplit('/').next().unwrap_or_default();
    NODE_BYTES + name.len() + data.len()
}

#[cfg(test)]
mod tests;

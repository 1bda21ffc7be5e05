//! Bytes of the embedded store's journal records. Integers are little-endian.
//!
//! ```text
//! nodes        1 | count u32 | node*            node: path | data | czxid u64 | mzxid u64 | pzxid u64
//!                                                     | ctime i64 | mtime i64 | version i32 | creations i32 | owner u64
//! snapshot end 2 | zxid u64 | nodes u64
//! multi        3 | zxid u64 | time i64 | session u64 | count u32 | op*
//!                                               op:   1 | mode u8 | path | data            create
//!                                                     2 | version i32 | path | data        set (-1: any version)
//!                                                     3 | version i32 | path               delete
//!                                                     4 | version i32 | path               check
//! close        4 | zxid u64 | time i64 | session u64
//! path: length u16 | UTF-8          data: length u32 | bytes
//! ```

use super::super::tree::{Change, Meta, NodeRecord, Txn};
use super::super::{CreateMode, Op, SessionId, Zxid};
use bytes::{Buf, BufMut, Bytes};

/// What one record of the journal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Nodes(Vec<NodeRecord>),
    SnapshotEnd { zxid: Zxid, nodes: u64 },
    Txn(Txn),
}

const NODES: u8 = 1;
const SNAPSHOT_END: u8 = 2;
const MULTI: u8 = 3;
const CLOSE: u8 = 4;
const ANY_VERSION: i32 = -1;

pub fn encode_nodes(out: &mut Vec<u8>, nodes: &[NodeRecord]) {
    out.put_u8(NODES);
    out.put_u32_le(nodes.len() as u32);
    for node in nodes {
        put_path(out, &node.path);
        put_data(out, &node.data);
        let meta = &node.meta;
        out.put_u64_le(meta.czxid);
        out.put_u64_le(meta.mzxid);
        out.put_u64_le(meta.pzxid);
        out.put_i64_le(meta.ctime_ms);
        out.put_i64_le(meta.mtime_ms);
        out.put_i32_le(meta.version);
        out.put_i32_le(meta.creations);
        out.put_u64_le(meta.owner);
    }
}

pub fn encode_snapshot_end(out: &mut Vec<u8>, zxid: Zxid, nodes: u64) {
    out.put_u8(SNAPSHOT_END);
    out.put_u64_le(zxid);
    out.put_u64_le(nodes);
}

pub fn encode_txn(out: &mut Vec<u8>, txn: &Txn) {
    out.put_u8(match txn.change {
        Change::Multi(_) => MULTI,
        Change::CloseSession => CLOSE,
    });
    out.put_u64_le(txn.zxid);
    out.put_i64_le(txn.time_ms);
    out.put_u64_le(txn.session.0);
    if let Change::Multi(ops) = &txn.change {
        out.put_u32_le(ops.len() as u32);
        ops.iter().for_each(|op| encode_op(out, op));
    }
}

/// None: the bytes do not say anything whole and exact.
pub fn decode(mut from: Bytes) -> Option<Record> {
    let record = match from.try_get_u8().ok()? {
        NODES => {
            let count = from.try_get_u32_le().ok()?;
            Record::Nodes((0..count).map(|_| decode_node(&mut from)).collect::<Option<_>>()?)
        }
        SNAPSHOT_END => Record::SnapshotEnd { zxid: from.try_get_u64_le().ok()?, nodes: from.try_get_u64_le().ok()? },
        kind @ (MULTI | CLOSE) => {
            let zxid = from.try_get_u64_le().ok()?;
            let time_ms = from.try_get_i64_le().ok()?;
            let session = SessionId(from.try_get_u64_le().ok()?);
            let change = if kind == CLOSE {
                Change::CloseSession
            } else {
                let count = from.try_get_u32_le().ok()?;
                Change::Multi((0..count).map(|_| decode_op(&mut from)).collect::<Option<_>>()?)
            };
            Record::Txn(Txn { zxid, time_ms, session, change })
        }
        _ => return None,
    };
    from.is_empty().then_some(record)
}

fn encode_op(out: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Create { path, data, mode } => {
            out.put_u8(1);
            out.put_u8(mode_byte(*mode));
            put_path(out, path);
            put_data(out, data);
        }
        Op::Set { path, data, version } => {
            out.put_u8(2);
            out.put_i32_le(version.unwrap_or(ANY_VERSION));
            put_path(out, path);
            put_data(out, data);
        }
        Op::Delete { path, version } => {
            out.put_u8(3);
            out.put_i32_le(version.unwrap_or(ANY_VERSION));
            put_path(out, path);
        }
        Op::Check { path, version } => {
            out.put_u8(4);
            out.put_i32_le(*version);
            put_path(out, path);
        }
    }
}

fn decode_op(from: &mut Bytes) -> Option<Op> {
    let any = |version: i32| (version != ANY_VERSION).then_some(version);
    Some(match from.try_get_u8().ok()? {
        1 => {
            let mode = mode_of(from.try_get_u8().ok()?)?;
            Op::Create { path: get_path(from)?, data: get_data(from)?, mode }
        }
        2 => {
            let version = any(from.try_get_i32_le().ok()?);
            Op::Set { path: get_path(from)?, data: get_data(from)?, version }
        }
        3 => {
            let version = any(from.try_get_i32_le().ok()?);
            Op::Delete { path: get_path(from)?, version }
        }
        4 => {
            let version = from.try_get_i32_le().ok()?;
            Op::Check { path: get_path(from)?, version }
        }
        _ => return None,
    })
}

fn decode_node(from: &mut Bytes) -> Option<NodeRecord> {
    let path = get_path(from)?;
    let data = get_data(from)?;
    let meta = Meta {
        czxid: from.try_get_u64_le().ok()?,
        mzxid: from.try_get_u64_le().ok()?,
        pzxid: from.try_get_u64_le().ok()?,
        ctime_ms: from.try_get_i64_le().ok()?,
        mtime_ms: from.try_get_i64_le().ok()?,
        version: from.try_get_i32_le().ok()?,
        creations: from.try_get_i32_le().ok()?,
        owner: from.try_get_u64_le().ok()?,
    };
    Some(NodeRecord { path, data, meta })
}

fn mode_byte(mode: CreateMode) -> u8 {
    match mode {
        CreateMode::Persistent => 0,
        CreateMode::Ephemeral => 1,
        CreateMode::PersistentSequential => 2,
        CreateMode::EphemeralSequential => 3,
    }
}

fn mode_of(byte: u8) -> Option<CreateMode> {
    Some(match byte {
        0 => CreateMode::Persistent,
        1 => CreateMode::Ephemeral,
        2 => CreateMode::PersistentSequential,
        3 => CreateMode::EphemeralSequential,
        _ => return None,
    })
}

fn put_path(out: &mut Vec<u8>, path: &str) {
    out.put_u16_le(u16::try_from(path.len()).expect("paths are bounded"));
    out.put_slice(path.as_bytes());
}

fn put_data(out: &mut Vec<u8>, data: &[u8]) {
    out.put_u32_le(u32::try_from(data.len()).expect("requests are bounded"));
    out.put_slice(data);
}

fn get_path(from: &mut Bytes) -> Option<String> {
    let length = usize::from(from.try_get_u16_le().ok()?);
    let bytes = take(from, length)?;
    String::from_utf8(bytes.to_vec()).ok()
}

/// Copied, so that a node does not hold on to the whole journal that it was read from.
fn get_data(from: &mut Bytes) -> Option<Bytes> {
    let length = from.try_get_u32_le().ok()? as usize;
    Some(Bytes::copy_from_slice(&take(from, length)?))
}

fn take(from: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= from.len()).then(|| from.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_round_trip() {
        let meta = Meta { czxid: 1, mzxid: 2, pzxid: 3, ctime_ms: 4, mtime_ms: 5, version: 6, creations: 7, owner: 8 };
        let node = NodeRecord { path: "/a".into(), data: "x".into(), meta };
        let ops = vec![
            Op::create("/a/b", "data", CreateMode::EphemeralSequential),
            Op::set("/a", "", None),
            Op::set("/a", "", Some(3)),
            Op::delete("/b", Some(0)),
            Op::check("/c", 9),
        ];
        let txn = |change| Txn { zxid: 4, time_ms: -5, session: SessionId(6), change };
        for record in [
            Record::Nodes(vec![node.clone(), node]),
            Record::SnapshotEnd { zxid: 9, nodes: 2 },
            Record::Txn(txn(Change::Multi(ops))),
            Record::Txn(txn(Change::CloseSession)),
        ] {
            let mut bytes = Vec::new();
            match &record {
                Record::Nodes(nodes) => encode_nodes(&mut bytes, nodes),
                Record::SnapshotEnd { zxid, nodes } => encode_snapshot_end(&mut bytes, *zxid, *nodes),
                Record::Txn(txn) => encode_txn(&mut bytes, txn),
            }
            assert_eq!(decode(bytes.clone().into()), Some(record));
            for cut in 0..bytes.len() {
                assert_eq!(decode(Bytes::copy_from_slice(&bytes[..cut])), None, "cut at {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(bytes.into());
        }
    }
}

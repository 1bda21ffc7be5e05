//! The embedded coordination store's journal: a snapshot of the tree, then the changes since.

use super::reader::Corrupt;
use super::{DumpError, Out};
use crate::cli::moment::show_moment;
use crate::coordination::embedded::{JournalError, Record, inspect};
use crate::coordination::tree::{Change, NodeRecord, Txn};
use crate::coordination::{CreateMode, Op};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Characters of a node's data that are shown to people; `--json` shows all.
const SHOWN_CHARS: usize = 120;

pub(super) fn dump(path: &Path, out: &mut Out) -> Result<(), DumpError> {
    let (mut changes, mut written) = (0u64, Ok(()));
    let inspected = inspect(path, &mut |at, end, record| {
        if written.is_ok() {
            written = print(at, end, record, out);
        }
        changes += u64::from(matches!(record, Record::Txn(_)));
    });
    written?;
    let inspected = inspected.map_err(corrupt)?;
    let left = inspected.file_bytes - inspected.valid_bytes;
    if left > 0 {
        let at = inspected.valid_bytes;
        out.text(|| format!("  {left} bytes from byte {at} on: an unfinished change, which the next start cuts"))?;
        out.json(|| json!({ "type": "unfinished_tail", "position": at, "bytes": left }))?;
    }
    let (bytes, last) = (inspected.file_bytes, inspected.tree.zxid());
    out.text(|| format!("  {changes} changes behind the snapshot, the last one {last}, {bytes} bytes: sound"))?;
    out.json(|| {
        json!({ "type": "store", "file": path.display().to_string(), "changes": changes, "last_zxid": last,
            "snapshot_bytes": inspected.snapshot_bytes, "bytes": bytes })
    })?;
    Ok(())
}

/// Where the store is damaged. What its bounds refuse is damage too: it was not written by a store.
pub(in crate::cli) fn corrupt(error: JournalError) -> DumpError {
    match error {
        JournalError::Damaged { position, found, .. } => Corrupt::at(position, found),
        JournalError::NotAStore { .. } | JournalError::TooLarge { .. } => Corrupt::at(0, error.to_string()),
        JournalError::Io { source, .. } => DumpError::Read(source),
    }
}

fn print(at: u64, end: u64, record: &Record, out: &mut Out) -> Result<(), DumpError> {
    match record {
        Record::Nodes(nodes) => nodes.iter().try_for_each(|node| print_node(at, node, out)),
        Record::SnapshotEnd { zxid, nodes } => {
            out.text(|| format!("  byte {at}  end of the snapshot: {nodes} nodes as of change {zxid}"))?;
            out.json(|| json!({ "type": "snapshot_end", "position": at, "zxid": zxid, "nodes": nodes }))?;
            Ok(())
        }
        Record::Txn(txn) => print_change((at, end), txn, out),
    }
}

fn print_node(at: u64, node: &NodeRecord, out: &mut Out) -> Result<(), DumpError> {
    let meta = &node.meta;
    out.text(|| {
        let owner = if meta.owner == 0 { String::new() } else { format!("  of session {}", meta.owner) };
        format!("  byte {at}  {}  version {}  {}{owner}", node.path.escape_debug(), meta.version, show_data(&node.data))
    })?;
    out.json(|| {
        json!({ "type": "node", "position": at, "path": node.path, "data": String::from_utf8_lossy(&node.data),
            "version": meta.version, "czxid": meta.czxid, "mzxid": meta.mzxid, "pzxid": meta.pzxid,
            "ctime": meta.ctime_ms, "mtime": meta.mtime_ms, "creations": meta.creations, "owner": meta.owner })
    })?;
    Ok(())
}

fn print_change((at, end): (u64, u64), txn: &Txn, out: &mut Out) -> Result<(), DumpError> {
    let ops = match &txn.change {
        Change::Multi(ops) => ops.as_slice(),
        Change::CloseSession => &[],
    };
    out.text(|| {
        let time = show_moment(txn.time_ms).unwrap_or_else(|| txn.time_ms.to_string());
        let what = match &txn.change {
            Change::Multi(ops) => format!("{} steps", ops.len()),
            Change::CloseSession => "the session ends".to_owned(),
        };
        format!("  byte {at}  change {}  {time}  session {}  {what}", txn.zxid, txn.session.0)
    })?;
    for op in ops {
        out.text(|| format!("    {}", op_text(op)))?;
    }
    out.json(|| {
        json!({ "type": "change", "position": at, "bytes": end - at, "zxid": txn.zxid, "time": txn.time_ms,
            "session": txn.session.0, "closes_session": matches!(txn.change, Change::CloseSession),
            "steps": ops.iter().map(op_json).collect::<Vec<_>>() })
    })?;
    Ok(())
}

fn op_text(op: &Op) -> String {
    let path = op.path().escape_debug();
    let any = |version: &Option<i32>| version.map_or(String::new(), |v| format!("  if at version {v}"));
    match op {
        Op::Create { data, mode, .. } => format!("create {path}  {}  {}", mode_name(*mode), show_data(data)),
        Op::Set { data, version, .. } => format!("set {path}  {}{}", show_data(data), any(version)),
        Op::Delete { version, .. } => format!("delete {path}{}", any(version)),
        Op::Check { version, .. } => format!("check {path}{}", any(&Some(*version))),
    }
}

fn op_json(op: &Op) -> Value {
    let mut object = Map::new();
    let (name, data, version) = match op {
        Op::Create { data, mode, .. } => {
            object.insert("mode".to_owned(), mode_name(*mode).into());
            ("create", Some(data), None)
        }
        Op::Set { data, version, .. } => ("set", Some(data), *version),
        Op::Delete { version, .. } => ("delete", None, *version),
        Op::Check { version, .. } => ("check", None, Some(*version)),
    };
    object.insert("step".to_owned(), name.into());
    object.insert("path".to_owned(), op.path().into());
    if let Some(data) = data {
        object.insert("data".to_owned(), String::from_utf8_lossy(data).into());
    }
    object.insert("version".to_owned(), version.into());
    Value::Object(object)
}

fn mode_name(mode: CreateMode) -> &'static str {
    match mode {
        CreateMode::Persistent => "persistent",
        CreateMode::Ephemeral => "ephemeral",
        CreateMode::PersistentSequential => "persistent sequential",
        CreateMode::EphemeralSequential => "ephemeral sequential",
    }
}

fn show_data(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data.get(..SHOWN_CHARS * 4).unwrap_or(data));
    let shown: String = text.chars().take(SHOWN_CHARS).collect();
    let more = if shown.len() < data.len() { format!("… ({} bytes)", data.len()) } else { String::new() };
    format!("\"{}\"{more}", shown.escape_debug())
}

#[cfg(test)]
mod tests {
    use crate::cli::dump::{DumpError, Form, Kind, Out, dump};
    use crate::coordination::embedded::{EmbeddedStore, FILE_NAME};
    use crate::coordination::{Coordination, CreateMode, Op};
    use proptest::prelude::*;
    use std::io::{BufWriter, stdout};
    use std::path::Path;

    fn dumped(path: &Path) -> Result<(), DumpError> {
        let mut out = Out { form: Form::Quiet, out: BufWriter::new(stdout()) };
        dump(path, Kind::Store, false, &mut out)
    }

    /// A store's file with a snapshot and three changes behind it.
    fn written() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join(FILE_NAME);
        let store = EmbeddedStore::open(&file).expect("created");
        let session = store.connect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let create = |path: &str| Op::create(path, "data", CreateMode::Persistent);
            session.multi(vec![create("/a"), create("/a/b")]).await.expect("changed");
            session.set("/a", "more".into(), Some(0)).await.expect("changed");
            session.delete("/a/b", None).await.expect("changed");
        });
        drop((store, session));
        (dir, file)
    }

    #[test]
    fn a_store_is_read_and_not_changed() {
        let (_dir, file) = written();
        let before = std::fs::read(&file).expect("read");
        dumped(&file).expect("sound");
        let torn = before.get(..before.len() - 3).expect("longer").to_vec();
        std::fs::write(&file, &torn).expect("written");
        dumped(&file).expect("a torn change was never answered");
        assert_eq!(std::fs::read(&file).expect("read"), torn);
    }

    #[test]
    fn damage_is_told_with_its_place() {
        let (_dir, file) = written();
        let mut content = std::fs::read(&file).expect("read");
        *content.get_mut(40).expect("longer") ^= 1;
        std::fs::write(&file, &content).expect("written");
        let error = dumped(&file).expect_err("damaged");
        assert_eq!(error.to_string(), "corrupt at byte 16: no valid record in the snapshot");
        std::fs::write(&file, b"hello").expect("written");
        assert!(matches!(dumped(&file), Err(DumpError::Corrupt(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn any_damage_is_an_answer(at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<prop::sample::Index>()) {
            let (_dir, file) = written();
            let mut content = std::fs::read(&file).expect("read");
            let at = at.index(content.len());
            *content.get_mut(at).expect("inside") ^= flip;
            content.truncate(cut.index(content.len()) + 1);
            std::fs::write(&file, &content).expect("written");
            let _ = dumped(&file);
        }
    }
}

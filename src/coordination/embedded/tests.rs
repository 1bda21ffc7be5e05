//! The store over its file: what was answered survives, whatever happens to the file's tail.

use super::*;
use crate::base::limits::STORE_REQUEST_BYTES_MAX;
use crate::coordination::CreateMode;
use std::path::PathBuf;

struct Scratch {
    _dir: tempfile::TempDir,
    file: PathBuf,
}

fn scratch() -> Scratch {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE_NAME);
    Scratch { _dir: dir, file }
}

fn create(path: &str, data: &str) -> Op {
    Op::create(path, data.to_string(), CreateMode::Persistent)
}

/// Everything a reader can see, but times.
fn picture(store: &EmbeddedStore) -> Vec<(String, Bytes, i32, u64)> {
    let mut seen = Vec::new();
    store.inner.borrow().tree.for_each(|node| seen.push((node.path, node.data, node.meta.version, node.meta.mzxid)));
    seen
}

#[tokio::test]
async fn what_was_answered_is_there_after_reopening() {
    let scratch = scratch();
    let store = EmbeddedStore::open(&scratch.file).unwrap();
    let session = store.connect();
    session.multi(vec![create("/a", "1"), create("/a/b", "2")]).await.unwrap();
    session.set("/a/b", "3".into(), Some(0)).await.unwrap();
    session.delete("/a/b", Some(1)).await.unwrap();
    session.create("/s-", "x".into(), CreateMode::PersistentSequential).await.unwrap();
    let before = picture(&store);
    drop((store, session));
    let store = EmbeddedStore::open(&scratch.file).unwrap();
    assert_eq!(picture(&store), before);
    let (path, _) = store.connect().create("/s-", "y".into(), CreateMode::PersistentSequential).await.unwrap();
    assert_eq!(path, "/s-0000000002");
}

/// The machine dies at any byte of any write: all that was answered before that write is there, and nothing else.
#[tokio::test]
async fn a_crash_at_every_byte_keeps_what_was_answered() {
    let scratch = scratch();
    let store = EmbeddedStore::open(&scratch.file).unwrap();
    let session = store.connect();
    let mut answered = vec![(store.file_bytes(), picture(&store))];
    for n in 0..3 {
        session.multi(vec![create(&format!("/n{n}"), "data"), create(&format!("/n{n}/sub"), "")]).await.unwrap();
        answered.push((store.file_bytes(), picture(&store)));
        session.set("/n0", format!("{n}").into(), None).await.unwrap();
        answered.push((store.file_bytes(), picture(&store)));
    }
    drop((store, session));
    let whole = std::fs::read(&scratch.file).unwrap();
    let first = answered[0].0 as usize;
    for cut in first..=whole.len() {
        for filler in [0usize, 40] {
            // A crash may leave the new length with blocks that were never written.
            let mut torn = whole[..cut].to_vec();
            torn.extend(vec![0; filler]);
            std::fs::write(&scratch.file, &torn).unwrap();
            let store = EmbeddedStore::open(&scratch.file).unwrap();
            // (Zeros may complete a record that ends in zeros: then that change is there too, though nobody was told.)
            let (length, expected) = answered
                .iter()
                .rev()
                .find(|(length, _)| torn.starts_with(&whole[..*length as usize]))
                .expect("the first is uncut");
            assert_eq!(&picture(&store), expected, "cut at {cut}");
            assert_eq!(std::fs::metadata(&scratch.file).unwrap().len(), *length);
            store.connect().create("/after", "crash".into(), CreateMode::Persistent).await.unwrap();
            let grown = picture(&store);
            drop(store);
            assert_eq!(picture(&EmbeddedStore::open(&scratch.file).unwrap()), grown);
        }
    }
}

/// A byte that rots before the last record is no crash's doing: dropping what follows would lose answered changes.
#[tokio::test]
async fn damage_in_the_middle_is_refused() {
    let scratch = scratch();
    let store = EmbeddedStore::open(&scratch.file).unwrap();
    let session = store.connect();
    session.multi(vec![create("/a", "1")]).await.unwrap();
    session.multi(vec![create("/b", "2")]).await.unwrap();
    let last = store.file_bytes() as usize;
    session.multi(vec![create("/c", "3")]).await.unwrap();
    drop((store, session));
    let whole = std::fs::read(&scratch.file).unwrap();
    for byte in 0..last {
        let mut bad = whole.clone();
        bad[byte] ^= 0x10;
        std::fs::write(&scratch.file, &bad).unwrap();
        match EmbeddedStore::open(&scratch.file) {
            Err(JournalError::Damaged { .. } | JournalError::NotAStore { .. }) => {}
            Err(other) => panic!("byte {byte}: {other}"),
            Ok(_) => panic!("byte {byte}: damage was not noticed"),
        }
        assert_eq!(std::fs::read(&scratch.file).unwrap(), bad, "a refused file is left alone");
    }
}

#[tokio::test]
async fn ephemerals_go_with_their_session_or_its_process() {
    let scratch = scratch();
    let store = EmbeddedStore::open(&scratch.file).unwrap();
    let (one, two) = (store.connect(), store.connect());
    one.create("/one", "".into(), CreateMode::Ephemeral).await.unwrap();
    two.create("/two", "".into(), CreateMode::Ephemeral).await.unwrap();
    one.close().await.unwrap();
    assert_eq!(one.get("/two").await, Err(StoreError::SessionExpired));
    assert_eq!(two.children("/").await.unwrap(), ["two"]);
    drop((store, one, two));
    let store = EmbeddedStore::open(&scratch.file).unwrap();
    let session = store.connect();
    assert_eq!(session.children("/").await.unwrap(), Vec::<String>::new());
    let (_, stat) = session.create("/two", "".into(), CreateMode::Ephemeral).await.unwrap();
    assert!(stat.czxid > 3, "a broker's epoch grows over restarts: {}", stat.czxid);
}

#[tokio::test]
async fn watches_report_in_order_what_is_below_them() {
    let scratch = scratch();
    let store = EmbeddedStore::open(&scratch.file).unwrap();
    let (session, other) = (store.connect(), store.connect());
    let mut watch = session.watch("/a").await.unwrap();
    other.multi(vec![create("/a", ""), create("/ab", ""), create("/a/b", "")]).await.unwrap();
    other.multi(vec![Op::set("/a/b", "1", None), Op::check("/nowhere", 0)]).await.unwrap_err();
    other.create("/a/e", "".into(), CreateMode::Ephemeral).await.unwrap();
    other.set("/a/b", "2".into(), None).await.unwrap();
    other.close().await.unwrap();
    session.delete("/a/b", None).await.unwrap();
    session.close().await.unwrap();
    let node = |event: NodeEvent| WatchEvent::Node(event);
    for expected in [
        node(NodeEvent::Created("/a".into())),
        node(NodeEvent::Created("/a/b".into())),
        node(NodeEvent::Created("/a/e".into())),
        node(NodeEvent::DataChanged("/a/b".into())),
        node(NodeEvent::Deleted("/a/e".into())),
        node(NodeEvent::Deleted("/a/b".into())),
        WatchEvent::Expired,
        WatchEvent::Expired,
    ] {
        assert_eq!(watch.next().await, expected);
    }
}

#[tokio::test]
async fn the_file_is_rewritten_when_changes_outweigh_it() {
    let scratch = scratch();
    let store = EmbeddedStore::open(&scratch.file).unwrap();
    let session = store.connect();
    session.multi(vec![create("/kept", "")]).await.unwrap();
    let mut largest = 0;
    for n in 0..24u8 {
        session.set("/kept", vec![n; 400_000].into(), None).await.unwrap();
        largest = largest.max(store.file_bytes());
    }
    assert!(store.file_bytes() < largest, "rewritten at least once");
    assert!(largest < 6 << 20, "bounded: {largest}");
    let before = picture(&store);
    drop((store, session));
    // What a rewrite left behind when the machine died before its rename.
    std::fs::write(scratch.file.with_file_name(format!("{FILE_NAME}.tmp")), b"half").unwrap();
    assert_eq!(picture(&EmbeddedStore::open(&scratch.file).unwrap()), before);
    assert!(!scratch.file.with_file_name(format!("{FILE_NAME}.tmp")).exists());
}

#[tokio::test]
async fn a_request_beyond_the_bound_is_refused() {
    let scratch = scratch();
    let store = EmbeddedStore::open(&scratch.file).unwrap();
    let data = vec![0; STORE_REQUEST_BYTES_MAX];
    let error = store.connect().create("/big", data.into(), CreateMode::Persistent).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
}

#[test]
fn something_else_under_the_name_is_refused() {
    let scratch = scratch();
    std::fs::write(&scratch.file, b"hello").unwrap();
    assert!(matches!(EmbeddedStore::open(&scratch.file), Err(JournalError::NotAStore { .. })));
}

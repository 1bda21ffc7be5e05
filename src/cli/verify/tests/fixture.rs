//! A data directory as a node leaves it, made by the node's own code for each file; and what verifying it finds.

use crate::base::ids::{BrokerId, LeaderEpoch, NodeId, Offset, PartitionIndex, TopicId};
use crate::cli::verify::finding::{Check, Finding, Severity};
use crate::cli::verify::target::Targets;
use crate::cli::verify::work;
use crate::controller::layout;
use crate::coordination::embedded::{EmbeddedStore, FILE_NAME};
use crate::coordination::{Coordination, CreateMode, Op};
use crate::log::checkpoint::{self, PartitionOffsets};
use crate::log::epochs::EpochHistory;
use crate::log::paths;
use crate::log::producers::ProducerStates;
use crate::log::segment::Segment;
use crate::log::testing::Batch;
use crate::node::format::{self, Survey, Wanted};
use crate::record::batch::{BatchHeader, PREFIX_LEN, patch_prefix};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub const TOPIC: &str = "clicks";
pub const SEGMENTS: i64 = 3;
pub const BATCHES: i64 = 6;
pub const RECORDS: i64 = 3;
/// Offsets of one segment.
pub const SPAN: i64 = BATCHES * RECORDS;
pub const END: i64 = SEGMENTS * SPAN;
/// The second leader's first offset.
pub const EPOCH_1: i64 = SPAN + RECORDS;

pub struct World {
    pub root: tempfile::TempDir,
    pub topic_id: TopicId,
}

impl World {
    /// Stopped in good order: one partition of three segments, an idempotent producer, two leaders.
    pub fn new() -> World {
        let root = tempfile::tempdir().expect("a directory");
        let wanted = Wanted { node_id: Some(NodeId(3)), shards: Some(1), shards_default: 1, forget: Vec::new() };
        let opened = format::survey(&[root.path().to_owned()], &wanted).and_then(Survey::open).expect("formatted");
        let world = World { root, topic_id: TopicId::random() };
        world.write_store(&opened.cluster_id, &BTreeMap::new());
        world.write_partition();
        world.write_offsets(checkpoint::RECOVERY_POINTS, END);
        world.write_offsets(checkpoint::LOG_START_OFFSETS, 0);
        format::mark_clean(&opened.dirs).expect("written");
        world
    }

    /// Killed: records up to `recovery_point` are known to be on disk.
    pub fn crashed(recovery_point: i64) -> World {
        let world = World::new();
        fs::remove_file(world.root.path().join(format::CLEAN)).expect("removed");
        world.write_offsets(checkpoint::RECOVERY_POINTS, recovery_point);
        world
    }

    pub fn dir(&self) -> PathBuf {
        self.root.path().join(paths::partition_dir(TOPIC, PartitionIndex(0)))
    }

    pub fn file(&self, base: i64, suffix: &str) -> PathBuf {
        paths::segment_file(&self.dir(), Offset(base), suffix)
    }

    pub fn write_offsets(&self, name: &str, offset: i64) {
        let offsets = PartitionOffsets::from([((TOPIC.to_owned(), PartitionIndex(0)), Offset(offset))]);
        let text = checkpoint::encode_partition_offsets(&offsets);
        checkpoint::write_atomically(&self.root.path().join(name), text.as_bytes()).expect("written");
    }

    pub fn write_store(&self, cluster: &str, settings: &BTreeMap<String, String>) {
        let file = self.root.path().join(FILE_NAME);
        let _ = fs::remove_file(&file);
        let store = EmbeddedStore::open(&file).expect("made");
        let session = store.connect();
        let make = |path: &str, data: bytes::Bytes| Op::create(path, data, CreateMode::Persistent);
        let replicas = [[BrokerId(3000)]];
        let topic = layout::encode_topic(self.topic_id, replicas.iter().map(|r| r.as_slice()));
        let mut ops: Vec<Op> = layout::ROOTS.iter().map(|path| make(path, bytes::Bytes::new())).collect();
        ops.push(make(layout::CLUSTER_ID, layout::encode_cluster_id(cluster)));
        ops.push(make(&layout::topic_path(TOPIC), topic));
        ops.push(make(&layout::topic_config_path(TOPIC), layout::encode_config(settings)));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(session.multi(ops)).expect("applied");
    }

    fn write_partition(&self) {
        let dir = self.dir();
        fs::create_dir(&dir).expect("made");
        let metadata = format!("version: 0\ntopic_id: {}", self.topic_id);
        fs::write(dir.join(paths::PARTITION_METADATA), metadata).expect("written");
        let (mut epochs, mut producers) = (EpochHistory::default(), ProducerStates::default());
        for base in (0..SEGMENTS).map(|n| n * SPAN) {
            let segment = Segment::new(Rc::from(dir.as_path()), Offset(base), 0);
            let mut content = Vec::new();
            for n in 0..BATCHES {
                let (header, bytes) = batch(base + n * RECORDS);
                segment.note_batch(&header, 150);
                epochs.assign(LeaderEpoch(header.partition_leader_epoch), header.base_offset);
                producers.note(&header);
                content.extend_from_slice(&bytes);
            }
            fs::write(segment.path(paths::LOG), &content).expect("written");
            segment.detached().write_indexes(&segment.encode_indexes().expect("in memory")).expect("written");
            let end = Offset(base + SPAN);
            let snapshot = paths::segment_file(&dir, end, paths::PRODUCER_SNAPSHOT);
            checkpoint::write_atomically(&snapshot, &producers.encode(end)).expect("written");
        }
        let text = checkpoint::encode_epochs(epochs.entries());
        fs::write(dir.join(paths::LEADER_EPOCH_CHECKPOINT), text).expect("written");
    }

    /// Changes a file's bytes.
    pub fn edit(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut content = fs::read(path).expect("read");
        change(&mut content);
        fs::write(path, content).expect("written");
    }

    /// Where the batches of a segment begin, and its length.
    pub fn positions(&self, base: i64) -> Vec<usize> {
        let content = fs::read(self.file(base, paths::LOG)).expect("read");
        let (mut positions, mut at) = (vec![0], 0);
        while let Ok(header) = BatchHeader::parse(content.get(at..).expect("inside")) {
            at += header.total_len();
            positions.push(at);
        }
        positions
    }

    pub fn verify(&self) -> Vec<Finding> {
        verify(self.root.path())
    }

    /// The one finding that there must be.
    pub fn single(&self) -> Finding {
        let mut found = self.verify();
        assert_eq!(found.len(), 1, "{}", show(&found));
        found.remove(0)
    }

    pub fn assert_single(&self, severity: Severity, check: Check) -> Finding {
        let found = self.single();
        assert_eq!((found.severity, found.check), (severity, check), "{}", found.lines());
        found
    }
}

/// A batch of the log, as its leader wrote it.
pub fn batch(offset: i64) -> (BatchHeader, Vec<u8>) {
    let sequence = i32::try_from(offset).expect("small");
    let template = Batch {
        records: RECORDS as usize,
        value_bytes: 40,
        timestamp_ms: 1_700_000_000_000 + offset,
        producer: Some((7, 0, sequence)),
        base: Offset(offset),
    };
    let (header, bytes) = template.build();
    let mut bytes = bytes.to_vec();
    let epoch = LeaderEpoch(i32::from(offset >= EPOCH_1));
    let prefix = bytes.first_chunk_mut::<PREFIX_LEN>().expect("a batch");
    patch_prefix(prefix, Offset(offset), header.batch_length, epoch);
    (BatchHeader::parse(&bytes).expect("a batch"), bytes)
}

pub fn verify(path: &Path) -> Vec<Finding> {
    let mut targets = Targets::open(&[], &[path.to_owned()]).expect("readable");
    let mut found: Vec<Finding> = targets.findings.kept().to_vec();
    for dir in &targets.dirs {
        found.extend_from_slice(dir.findings.kept());
    }
    let done = work::check_all(
        &mut targets.partitions,
        2,
        |_| {},
        |partition, _| -> Result<(), ()> {
            found.extend_from_slice(partition.findings.kept());
            Ok(())
        },
    );
    done.expect("nothing is printed");
    found
}

pub fn show(findings: &[Finding]) -> String {
    findings.iter().map(|finding| finding.lines() + "\n").collect()
}

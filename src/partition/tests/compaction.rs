//! Random histories of a compacted partition: appends, passes of compaction whole and given up, removal, stops and power cuts
//! in any order, compared with a list of the records that were taken.
//!
//! A failure names its seed; `CORELOG_SEED` runs it alone.

use super::world::World;
use crate::base::config::TopicConfig;
use crate::base::config::topic::CleanupPolicy;
use crate::base::ids::{LeaderEpoch, Offset};
use crate::base::seeds::each_seed;
use crate::log::paths;
use crate::log::read::{Located, locate};
use crate::log::times;
use crate::maintenance::{self, Maintenance};
use crate::partition::clean::CleanerMemory;
use crate::partition::leader::Acks;
use crate::partition::waiters::AppendWait;
use crate::record::batch::{BatchHeader, Codec, walk};
use crate::record::builder::BatchBuilder;
use crate::record::compression::Compression;
use crate::record::records::Records;
use fastrand::Rng;
use std::collections::HashMap;
use std::fs::File;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;

const SEEDS: u64 = 25;
const STEPS: usize = 25;
const RING_BYTES: u64 = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    offset: i64,
    key: u8,
    /// None: a tombstone.
    value: Option<u32>,
    timestamp_ms: i64,
}

struct Run {
    rng: Rng,
    world: World,
    taken: Vec<Taken>,
    /// The last batch of each producer: what a retry of it must be answered.
    last: HashMap<i64, (Vec<u8>, i64, i64)>,
    sequences: HashMap<i64, i32>,
    /// The first id that is in use now.
    producers: i64,
    log_start: i64,
    /// Records below may have been dealt with by a pass.
    touched: i64,
    clock_ms: i64,
    values: u32,
}

/// One thread for all tests of the process, as a node has.
fn maintenance() -> Maintenance {
    static SHARED: OnceLock<Maintenance> = OnceLock::new();
    let begin = || {
        let (maintenance, thread) = maintenance::start(maintenance::Settings::default()).expect("started");
        // It ends with the process.
        Box::leak(Box::new(thread));
        maintenance
    };
    SHARED.get_or_init(begin).clone()
}

#[test]
fn compacted_partitions_keep_the_latest_of_each_key() {
    each_seed(SEEDS, |seed| tokio_uring::start(run(seed)));
}

async fn run(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let config = TopicConfig {
        cleanup_policy: CleanupPolicy { delete: true, compact: true },
        segment_bytes: rng.u32(300..3000),
        segment_index_bytes: *rng.choice(&[24, 120, 10 << 20]).expect("some"),
        index_interval_bytes: rng.u32(0..400),
        delete_retention_ms: rng.i64(1..400),
        min_cleanable_dirty_ratio: 0.0,
        file_delete_delay_ms: 0,
        retention_ms: None,
        ..TopicConfig::default()
    };
    let mut world = World::with_maintenance(config, maintenance());
    if rng.bool() {
        world = world.and_journal(RING_BYTES).await;
    }
    let mut run = Run {
        rng,
        world,
        taken: Vec::new(),
        last: HashMap::new(),
        sequences: HashMap::new(),
        producers: 0,
        log_start: 0,
        touched: 0,
        clock_ms: 1_000_000,
        values: 0,
    };
    for _ in 0..STEPS {
        run.step().await;
        run.world.quiet().await;
        run.check().await;
    }
}

impl Run {
    fn end(&self) -> i64 {
        self.taken.last().map_or(self.log_start, |record| (record.offset + 1).max(self.log_start))
    }

    async fn step(&mut self) {
        match self.rng.u8(0..100) {
            0..40 => {
                for _ in 0..self.rng.usize(1..8) {
                    self.append();
                }
            }
            40..62 => self.compact().await,
            62..68 => self.compact_while_things_happen().await,
            68..74 => self.give_up().await,
            74..79 => self.delete_records(),
            79..83 => self.retain(),
            83..86 => self.world.save_checkpoints(),
            86..90 => {
                self.world.quiet().await;
                self.world.close().await;
                let opened = self.world.reopen(true).await;
                assert!(opened.cuts.is_empty(), "{:?}", opened.cuts);
            }
            90..95 => self.reopen_after_a_crash().await,
            _ => self.lose_power().await,
        }
    }

    fn append(&mut self) {
        self.clock_ms += self.rng.i64(0..40);
        let codec = *self.rng.choice(&Codec::ALL).expect("some");
        let mut builder = BatchBuilder::new(Compression::of(codec));
        let count = self.rng.i32(1..5);
        let producer = self.producers + self.rng.i64(0..5);
        let is_idempotent = producer < self.producers + 3;
        if is_idempotent {
            let sequence = self.sequences.entry(producer).or_insert(0);
            builder = builder.producer(producer, 0, *sequence);
            *sequence += count;
        }
        let base = self.end();
        for n in 0..i64::from(count) {
            self.values += 1;
            let value = (self.rng.u8(0..4) > 0).then_some(self.values);
            let record = Taken { offset: base + n, key: self.rng.u8(0..9), value, timestamp_ms: self.clock_ms };
            let bytes = record.value.map(|value| value.to_be_bytes().repeat(self.rng.usize(1..12)));
            builder.push(record.timestamp_ms, Some(&[record.key]), bytes.as_deref(), &[]).expect("small");
            self.taken.push(record);
        }
        let bytes = builder.build().expect("has records");
        let header = BatchHeader::parse(&bytes).expect("just built");
        let acks = *self.rng.choice(&[Acks::Leader, Acks::All]).expect("some");
        let appended =
            self.world.partition.append(header, bytes.clone(), acks, (&AppendWait::new(), 0)).expect("taken");
        assert_eq!(appended.base_offset, Offset(base));
        if is_idempotent {
            self.last.insert(producer, (bytes.to_vec(), base, self.end()));
        }
    }

    fn memory(&mut self) -> CleanerMemory {
        CleanerMemory { map_bytes: 24 * self.rng.u64(3..20), load_factor: 0.9 }
    }

    /// A pass, if one is due; whether it went through.
    async fn pass(&mut self, memory: CleanerMemory) -> Option<bool> {
        let partition = Rc::clone(&self.world.partition);
        let dirty = partition.dirty(self.clock_ms).await?;
        self.touched = self.touched.max(dirty.first_uncleanable.0);
        Some(partition.compact(&dirty, memory, self.clock_ms).await)
    }

    async fn compact(&mut self) {
        self.world.quiet().await;
        self.clock_ms += self.rng.i64(0..500);
        let memory = self.memory();
        let before = self.world.partition.cleaning.cleaned();
        if let Some(done) = self.pass(memory).await {
            assert!(done, "nothing hinders it");
            let cleaned = self.world.partition.cleaning.cleaned();
            assert!(cleaned > before, "every pass gets on");
            self.check_superseded(cleaned.expect("just set").0).await;
        }
    }

    /// Below `cleaned` no record is left of which a later one is below it too.
    async fn check_superseded(&mut self, cleaned: i64) {
        let present = self.present().await;
        let below = self.log_start..cleaned;
        let below: Vec<&Taken> = present.iter().filter(|record| below.contains(&record.offset)).collect();
        for record in &below {
            let later = below.iter().find(|other| other.key == record.key && other.offset > record.offset);
            assert_eq!(later, None, "{record:?} is left, all below {cleaned} was compacted");
        }
    }

    async fn compact_while_things_happen(&mut self) {
        let memory = self.memory();
        let partition = Rc::clone(&self.world.partition);
        let Some(dirty) = partition.dirty(self.clock_ms).await else { return };
        self.touched = self.touched.max(dirty.first_uncleanable.0);
        let clock_ms = self.clock_ms;
        let compacting = tokio::task::spawn_local(async move { partition.compact(&dirty, memory, clock_ms).await });
        for _ in 0..15 {
            match self.rng.u8(0..9) {
                0..4 => self.append(),
                4 => self.delete_records(),
                5 => self.retain(),
                _ => drop(self.present().await),
            }
            tokio::time::sleep(Duration::from_micros(self.rng.u64(1..1000))).await;
        }
        compacting.await.expect("no panic");
    }

    /// A pass that is cancelled at any instant.
    async fn give_up(&mut self) {
        let memory = self.memory();
        let after = Duration::from_micros(self.rng.u64(0..6000));
        let _ = tokio::time::timeout(after, self.pass(memory)).await;
        self.world.quiet().await;
    }

    fn delete_records(&mut self) {
        let ends = self.world.partition.ends();
        let to = Offset(self.rng.i64(ends.log_start.0..=ends.high_watermark.0));
        self.world.partition.delete_records(to);
        self.log_start = self.log_start.max(to.0);
        self.world.save_checkpoints();
    }

    fn retain(&mut self) {
        let config = self.world.config.clone();
        let bytes = self.rng.u64(0..6000);
        self.world.set_config(TopicConfig { retention_bytes: Some(bytes), ..config.clone() });
        self.world.partition.enforce_retention(self.clock_ms);
        self.log_start = self.world.partition.ends().log_start.0;
        self.world.save_checkpoints();
        self.world.set_config(config);
    }

    /// Everything that was written is there. The checkpoint files may be old, or gone, and the topic another one's kind by now.
    async fn reopen_after_a_crash(&mut self) {
        self.world.quiet().await;
        if self.rng.bool() {
            self.world.saved.recovery_point = Offset(0);
        }
        if self.rng.bool() {
            self.world.saved.cleaned = None;
        }
        let before = self.world.config.cleanup_policy;
        if self.rng.bool() {
            self.world.config.cleanup_policy = CleanupPolicy { delete: true, compact: false };
        }
        self.lose_indexes();
        let opened = self.world.reopen(false).await;
        assert!(opened.cuts.is_empty(), "{:?}", opened.cuts);
        let config = TopicConfig { cleanup_policy: before, ..self.world.config.clone() };
        self.world.set_config(config);
    }

    /// The end of the active segment is lost as far as it was not flushed.
    async fn lose_power(&mut self) {
        self.world.quiet().await;
        let flushed = self.world.partition.ends().flushed;
        let unflushed = self.world.stored().into_iter().find(|batch| batch.header.base_offset >= flushed);
        if let Some(victim) = unflushed {
            let path = paths::segment_file(&self.world.path(), victim.segment, paths::LOG);
            let cut = victim.position + self.rng.u64(0..victim.header.total_len() as u64);
            File::options().write(true).open(&path).expect("open").set_len(cut).expect("cut");
            for (base, path) in self.world.files(paths::LOG) {
                if base > victim.segment {
                    std::fs::remove_file(path).expect("removed");
                }
            }
        }
        self.world.reopen(false).await;
        let end = self.world.partition.ends().log_end.0;
        assert!(end >= flushed.0.min(self.end()), "{end}, flushed {flushed}");
        self.taken.retain(|record| record.offset < end);
        // Whoever lost something begins with another id, as after a new InitProducerId.
        self.last.retain(|_, (.., last_end)| *last_end <= end);
        self.sequences.clear();
        self.producers += 10;
    }

    fn lose_indexes(&mut self) {
        for suffix in [paths::OFFSET_INDEX, paths::TIME_INDEX] {
            for (_, path) in self.world.files(suffix) {
                if self.rng.u8(0..4) == 0 {
                    std::fs::remove_file(&path).expect("removed");
                }
            }
        }
    }

    /// The records that a consumer gets from the log's start on.
    async fn present(&self) -> Vec<Taken> {
        let partition = &self.world.partition;
        let (mut present, mut from) = (Vec::new(), partition.ends().log_start);
        loop {
            let bytes = match self.read(from).await {
                Some(bytes) => bytes,
                None => return present,
            };
            for batch in walk(&bytes) {
                let batch = batch.expect("a batch begins here");
                assert!(batch.header.crc_matches(batch.bytes), "the batch at {} is whole", batch.header.base_offset);
                let mut records = Records::new(&batch.header, batch.bytes).expect("sound");
                while let Some(record) = records.next().expect("sound") {
                    let value = record.value.map(|value| u32::from_be_bytes(*value.first_chunk().expect("four bytes")));
                    let key = record.key.expect("keyed")[0];
                    present.push(Taken { offset: record.offset.0, key, value, timestamp_ms: record.timestamp });
                }
                from = batch.header.next_offset();
            }
        }
    }

    async fn read(&self, from: Offset) -> Option<bytes::Bytes> {
        let partition = &self.world.partition;
        for _ in 0..64 {
            let end = partition.ends().high_watermark;
            let from = from.max(partition.ends().log_start);
            let located = locate(&partition.core(), partition.files(), (from, end), 4096).expect("readable");
            match located {
                Located::AtEnd => return None,
                Located::Missing(missing) => missing.load(partition.files()).await.expect("loaded"),
                Located::At(span) => {
                    let file = partition.files().file(&span.segment).expect("open");
                    let length = (span.end - span.position) as usize;
                    return Some(file.read_at(u64::from(span.position), length).await.expect("read"));
                }
            }
        }
        panic!("64 look-ups did not find offset {from}");
    }

    async fn check(&mut self) {
        let partition = Rc::clone(&self.world.partition);
        partition.core().check_invariants();
        let ends = partition.ends();
        assert_eq!((ends.log_start.0, ends.log_end.0), (self.log_start, self.end()));
        let all = self.present().await;
        let by_offset: HashMap<i64, &Taken> = self.taken.iter().map(|record| (record.offset, record)).collect();
        assert!(all.is_sorted_by(|a, b| a.offset < b.offset));
        for record in &all {
            assert_eq!(by_offset.get(&record.offset), Some(&record), "what is there is what was taken");
        }
        let live = |record: &&Taken| record.offset >= self.log_start;
        let mut latest: HashMap<u8, &Taken> = HashMap::new();
        for record in self.taken.iter().filter(live) {
            latest.insert(record.key, record);
        }
        for record in self.taken.iter().filter(live) {
            if all.contains(record) {
                continue;
            }
            let later = self.taken.iter().find(|other| other.key == record.key && other.offset > record.offset);
            let superseded = later.is_some_and(|later| later.offset < self.touched);
            let over = record.value.is_none() && record.offset < self.touched;
            assert!(superseded || over, "{record:?} is lost; passes went to {}", self.touched);
            let is_latest = latest[&record.key] == record;
            let older = all.iter().find(|other| other.key == record.key && other.offset < record.offset);
            assert!(!is_latest || older.is_none_or(|o| !live(&o)), "{older:?} has come back");
        }
        self.check_names();
        self.check_times(&all).await;
        self.check_retries();
    }

    /// No compaction is unfinished, and segments end where the next one begins.
    fn check_names(&self) {
        let stored = self.world.stored();
        for pair in stored.windows(2).filter(|pair| pair[0].segment != pair[1].segment) {
            assert_eq!(pair[0].header.next_offset(), pair[1].segment, "no gap between segments");
        }
        let names = std::fs::read_dir(self.world.path()).into_iter().flatten();
        for name in names.map(|entry| entry.expect("listed").file_name()) {
            assert!(!name.to_string_lossy().ends_with(".swap"), "{name:?}");
        }
    }

    async fn check_times(&mut self, all: &[Taken]) {
        let partition = &self.world.partition;
        let segments: Vec<_> = partition.core().segments().iter().cloned().collect();
        let corrupt = partition.core().corrupt().clone();
        let log = (&segments[..], &corrupt);
        let live: Vec<&Taken> = all.iter().filter(|record| record.offset >= self.log_start).collect();
        let target = self.clock_ms - self.rng.i64(-20..900);
        let asked = (target, Offset(self.log_start));
        let first = times::first_since(log, partition.files(), asked, 4096).await.expect("readable");
        let expected = live.iter().find(|record| record.timestamp_ms >= target).map(|record| record.offset);
        assert_eq!(first.map(|found| found.offset.0), expected, "since {target}");
        let found = times::greatest(log, partition.files(), asked.1, 4096).await.expect("readable");
        let most = live.iter().map(|record| record.timestamp_ms).max();
        let expected = live.iter().find(|record| Some(record.timestamp_ms) == most).map(|record| record.offset);
        assert_eq!(found.map(|found| found.offset.0), expected, "the greatest timestamp");
    }

    /// A retry of each producer's last batch is recognised, whatever became of its records.
    fn check_retries(&mut self) {
        for (id, (bytes, base, end)) in &self.last {
            if *base < self.log_start {
                continue;
            }
            let header = BatchHeader::parse(bytes).expect("built");
            let bytes = bytes::Bytes::copy_from_slice(bytes);
            let wait = AppendWait::new();
            let appended = self.world.partition.append(header, bytes, Acks::Leader, (&wait, 0)).expect("answered");
            assert_eq!((appended.base_offset.0, appended.end.0), (*base, *end), "producer {id}");
            assert!(appended.duplicate_timestamp_ms.is_some());
        }
        self.world.epoch = LeaderEpoch(self.world.epoch.0);
    }
}

//! Random histories of a partition, compared after every step with a list of the batches that it should hold.
//!
//! A failure names its seed; `CORELOG_SEED` runs it alone.

use super::world::{Reopened, SlowDisk, World};
use crate::base::config::TopicConfig;
use crate::base::ids::{LeaderEpoch, Offset};
use crate::base::seeds::each_seed;
use crate::log::paths;
use crate::log::testing::Batch;
use crate::log::times::{self, TimestampedOffset};
use crate::maintenance::{self, Maintenance};
use crate::partition::leader::Acks;
use crate::partition::waiters::AppendWait;
use fastrand::Rng;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinHandle;

const SEEDS: u64 = 300;
const STEPS: usize = 40;
/// So small that it goes round, and that writes wait for it.
const RING_BYTES: u64 = 64 << 10;

/// A batch that was taken.
#[derive(Clone, Copy, Debug)]
struct Known {
    base: Offset,
    end: Offset,
    timestamp_ms: i64,
    epoch: LeaderEpoch,
    producer: Option<(i64, i16, i32)>,
}

struct Run {
    rng: Rng,
    world: World,
    is_journaled: bool,
    /// All batches that were ever taken and not lost, oldest first, the removed ones included.
    batches: Vec<Known>,
    log_start: Offset,
    clock_ms: i64,
    /// Waits that must have ended once the partition is quiet.
    waits: Vec<Rc<AppendWait>>,
    /// Batches of each producer that a retry is recognised of; only the last one after a restart.
    recent: HashMap<i64, Vec<Known>>,
    /// Producers of which a restart without snapshots may know an earlier batch than the last one.
    uncertain: HashSet<i64>,
    snapshots_lost: bool,
    /// What was begun before: a process that has ended does nothing any more.
    writing_down: Option<JoinHandle<std::io::Result<()>>>,
    slow: SlowDisk,
}

#[test]
fn partitions_hold_what_they_took() {
    let (maintenance, _thread) = maintenance::start(maintenance::Settings { plain: true }).expect("started");
    each_seed(SEEDS, |seed| tokio_uring::start(run(seed, maintenance.clone())));
}

async fn run(seed: u64, maintenance: Maintenance) {
    let mut rng = Rng::with_seed(seed);
    let config = random_config(&mut rng);
    let is_journaled = rng.bool();
    let world = World::with_maintenance(config, maintenance);
    let mut world = match is_journaled {
        true => world.and_journal(RING_BYTES).await,
        false => world,
    };
    let slow = SlowDisk::default();
    world.set_faults(slow.faults());
    let mut run = Run {
        rng,
        world,
        slow,
        is_journaled,
        batches: Vec::new(),
        log_start: Offset(0),
        clock_ms: 1_000_000,
        waits: Vec::new(),
        recent: HashMap::new(),
        uncertain: HashSet::new(),
        snapshots_lost: false,
        writing_down: None,
    };
    for _ in 0..STEPS {
        run.step().await;
    }
    run.world.quiet().await;
}

fn random_config(rng: &mut Rng) -> TopicConfig {
    TopicConfig {
        segment_bytes: rng.u32(300..3000),
        segment_index_bytes: *rng.choice(&[24, 36, 120, 10 << 20]).expect("some"),
        segment_ms: *rng.choice(&[50, 500, i64::MAX]).expect("some"),
        segment_jitter_ms: *rng.choice(&[0, 0, 30]).expect("some"),
        index_interval_bytes: rng.u32(0..400),
        file_delete_delay_ms: 0,
        retention_ms: None,
        flush_messages: rng.bool().then_some(7),
        ..TopicConfig::default()
    }
}

impl Run {
    fn end(&self) -> Offset {
        self.batches.last().map_or(self.log_start, |batch| batch.end.max(self.log_start))
    }

    async fn step(&mut self) {
        match self.rng.u32(0..100) {
            0..46 => self.append_some(),
            46..52 => tokio::task::yield_now().await,
            52..58 => self.write_down().await,
            58..64 => self.delete_records().await,
            64..70 => self.retain().await,
            70..74 => {
                self.world.epoch = LeaderEpoch(self.world.epoch.0 + 1);
                let config = self.world.config.clone();
                self.world.set_config(config);
            }
            74..78 => self.world.save_checkpoints(),
            78..86 => self.close_and_reopen().await,
            86..92 => self.kill_and_reopen().await,
            92..96 => self.lose_power_and_reopen().await,
            96..100 => self.lose_power_in_the_middle().await,
            _ => unreachable!("the range ends at 100"),
        }
        self.world.partition.core().check_invariants();
        if self.rng.u8(0..3) == 0 {
            self.settle().await;
            self.check().await;
        }
    }

    fn append_some(&mut self) {
        for _ in 0..self.rng.usize(1..6) {
            self.clock_ms += self.rng.i64(0..40);
            let timestamp_ms = match self.rng.u8(0..10) {
                0 => -1,
                1 => self.clock_ms - 100,
                _ => self.clock_ms,
            };
            let (producer, expected) = self.choose_producer();
            let batch = Batch {
                records: self.rng.usize(1..4),
                // Some are too large for the ring, so that what it has does not go on from what is on disk.
                value_bytes: if self.rng.u8(0..30) == 0 { 5000 } else { self.rng.usize(1..120) },
                timestamp_ms,
                producer,
                base: Offset(0),
            };
            let batch = match expected {
                Expected::Retry(of) => Batch { records: (of.end - of.base) as usize, ..batch },
                _ => batch,
            };
            let acks = *self.rng.choice(&[Acks::None, Acks::Leader, Acks::All]).expect("some");
            let wait = AppendWait::new();
            let appended = self.world.append(batch, acks, &wait);
            match expected {
                Expected::Refused => assert!(appended.is_err(), "{producer:?} must be refused"),
                Expected::Retry(of) => {
                    let appended = appended.expect("a retry is answered");
                    assert_eq!((appended.base_offset, appended.end), (of.base, of.end));
                    assert!(appended.duplicate_timestamp_ms.is_some());
                }
                Expected::New => {
                    let appended = appended.unwrap_or_else(|e| panic!("{producer:?}: {e}"));
                    assert_eq!(appended.base_offset, self.end());
                    let epoch = self.world.epoch;
                    let known = Known { base: appended.base_offset, end: appended.end, timestamp_ms, epoch, producer };
                    self.batches.push(known);
                    if let Some((id, producer_epoch, _)) = producer {
                        let recent = self.recent.entry(id).or_default();
                        recent.retain(|known| known.producer.is_some_and(|(_, e, _)| e == producer_epoch));
                        recent.push(known);
                        if recent.len() > 5 {
                            recent.remove(0);
                        }
                    }
                }
            }
            self.waits.push(wait);
        }
    }

    /// A producer's next batch, a retry, a gap or an old epoch; and what must come of it.
    fn choose_producer(&mut self) -> (Option<(i64, i16, i32)>, Expected) {
        let id = self.rng.i64(0..6);
        if id > 2 || self.uncertain.contains(&id) {
            return (None, Expected::New);
        }
        let Some(last) = self.recent.get(&id).and_then(|recent| recent.last()).copied() else {
            return (Some((id, 0, 0)), Expected::New);
        };
        let (_, epoch, sequence) = last.producer.expect("recent batches have producers");
        let next = sequence + (last.end - last.base) as i32;
        match self.rng.u8(0..10) {
            0 => (Some((id, epoch, next + 5)), Expected::Refused),
            1 if epoch > 0 => (Some((id, epoch - 1, next)), Expected::Refused),
            2 => (Some((id, epoch + 1, 0)), Expected::New),
            3..5 => {
                let recent = &self.recent[&id];
                let of = recent[self.rng.usize(0..recent.len())];
                (of.producer, Expected::Retry(of))
            }
            _ => (Some((id, epoch, next)), Expected::New),
        }
    }

    /// Everything that was taken gets written, and everybody who waits is answered.
    async fn settle(&mut self) {
        self.written_down().await;
        self.world.quiet().await;
        for wait in self.waits.drain(..) {
            assert!(wait.is_done(), "a request waits for ever");
            assert!(wait.done().await.is_empty(), "a request was told of a failure");
        }
    }

    async fn delete_records(&mut self) {
        let ends = self.world.partition.ends();
        let to = Offset(self.rng.i64(ends.log_start.0..=ends.high_watermark.0));
        self.world.partition.delete_records(to);
        self.log_start = self.log_start.max(to);
        self.world.save_checkpoints();
    }

    async fn retain(&mut self) {
        if self.rng.bool() {
            self.settle().await;
        }
        let config = self.world.config.clone();
        let retention_ms = self.rng.u64(0..800);
        let bytes = self.rng.u64(0..4000);
        let by_time = self.rng.bool();
        let limits = match by_time {
            true => TopicConfig { retention_ms: Some(retention_ms), ..config.clone() },
            false => TopicConfig { retention_bytes: Some(bytes), ..config.clone() },
        };
        self.world.set_config(limits);
        let size_before = self.size_above_start();
        self.world.partition.enforce_retention(self.clock_ms);
        let log_start = self.world.partition.ends().log_start;
        let removed = self.batches.iter().filter(|b| b.base >= self.log_start && b.end <= log_start);
        for batch in removed {
            let expired = self.clock_ms - batch.timestamp_ms > retention_ms as i64;
            assert!(!by_time || expired, "{batch:?} had not expired");
        }
        if !by_time {
            assert!(self.world.partition.core().size() >= bytes.min(size_before), "too much was removed");
        }
        assert!(log_start >= self.log_start);
        self.log_start = log_start;
        // As the housekeeper does: retention may raise the start within a segment that stays.
        self.world.save_checkpoints();
        self.world.set_config(config);
    }

    /// Bytes of the segments that hold something above the log's start. What lies wholly below goes whatever the limits
    /// say: a start that was raised within the active segment leaves it behind until the next roll.
    fn size_above_start(&self) -> u64 {
        let start = self.world.partition.ends().log_start;
        let core = self.world.partition.core();
        let segments = core.segments();
        let first = (1..segments.len()).take_while(|&i| segments[i].base <= start).last().unwrap_or(0);
        segments.iter().skip(first).map(|segment| u64::from(segment.size())).sum()
    }

    /// What the next recovery need not read again is written down; or that has begun when the next step comes.
    async fn write_down(&mut self) {
        let partition = Rc::clone(&self.world.partition);
        self.written_down().await;
        self.writing_down = Some(tokio::task::spawn_local(async move { partition.settle().await }));
        if self.rng.bool() {
            self.written_down().await;
        }
    }

    async fn written_down(&mut self) {
        if let Some(written) = self.writing_down.take() {
            written.await.expect("no panic").expect("settled");
        }
    }

    async fn close_and_reopen(&mut self) {
        self.settle().await;
        self.world.close().await;
        let flushed = self.world.partition.ends().flushed;
        assert_eq!(flushed, self.end(), "a closed log is on disk");
        let snapshots_stay = self.lose_derived_files();
        let opened = self.world.reopen(true).await;
        assert!(opened.cuts.is_empty(), "{:?}", opened.cuts);
        self.forget_sequences(snapshots_stay);
        self.check().await;
    }

    /// The process dies between two writes: what was written stays.
    async fn kill_and_reopen(&mut self) {
        self.settle().await;
        self.tear_indexes();
        let snapshots_stay = self.lose_derived_files();
        if self.rng.u8(0..4) == 0 {
            self.world.saved.recovery_point = Offset(0);
        }
        if self.rng.u8(0..4) == 0 && self.world.path().exists() {
            // A roll had got as far as the new file.
            fs::File::create(paths::segment_file(&self.world.path(), self.end(), paths::LOG)).expect("made");
        }
        let opened = self.world.reopen(false).await;
        assert!(opened.cuts.is_empty(), "{:?}", opened.cuts);
        self.forget_sequences(snapshots_stay);
        self.check().await;
    }

    /// Some of what no flush covered is not, or not rightly, on disk.
    async fn lose_power_and_reopen(&mut self) {
        self.settle().await;
        let (durable, _) = self.world.partition.durable_and_written();
        let flushed = self.world.partition.ends().flushed;
        let damaged_from = self.damage(flushed);
        assert!(damaged_from >= flushed.min(self.end()));
        let opened = self.world.reopen(false).await;
        let ends = self.world.partition.ends();
        // The journal may have mended what was damaged, and what it does not have goes.
        let end = if self.is_journaled { ends.log_end } else { damaged_from };
        let context =
            format!("{durable}, flushed {flushed}, {ends:?}, log start {}, {:?}", self.log_start, opened.cuts);
        assert!(end >= damaged_from && end >= durable && end <= self.end().max(self.log_start), "{context}");
        self.batches.retain(|batch| batch.end <= end);
        assert_eq!(ends.log_end, end.max(self.log_start), "{context}");
        self.note_new_beginning(end);
        self.forget_sequences(true);
        self.check().await;
    }

    /// The same while writes, syncs and the journal are under way: what was durable at that moment must be there.
    async fn lose_power_in_the_middle(&mut self) {
        self.settle().await;
        self.slow.set(self.rng.bool());
        self.append_some();
        for _ in 0..self.rng.usize(0..6) {
            tokio::time::sleep(Duration::from_micros(self.rng.u64(0..400))).await;
        }
        let (durable, _) = self.world.partition.durable_and_written();
        let flushed = self.world.partition.ends().flushed;
        // Nothing of the partition moves on before the next await; the kernel may do more than it has told.
        let copy = self.world.copy();
        self.slow.set(false);
        self.written_down().await;
        self.world.quiet().await;
        self.waits.clear();
        self.world.dir = copy;
        self.tear_indexes();
        self.damage(flushed);
        if self.is_journaled && self.rng.bool() {
            self.die_before_the_ring_is_renewed(durable).await;
            return;
        }
        let opened = self.world.reopen(false).await;
        self.check_kept(durable, &opened).await;
    }

    /// The process that finds this is cut off as well, when the ring still says what it said.
    async fn die_before_the_ring_is_renewed(&mut self, durable: Offset) {
        let opened = self.world.reopen_without_journal();
        self.check_kept(durable, &opened).await;
        if !opened.waits {
            for _ in 0..self.rng.usize(1..4) {
                self.append_some();
                self.settle().await;
            }
        }
        let (durable, _) = self.world.partition.durable_and_written();
        let flushed = self.world.partition.ends().flushed;
        self.damage(flushed);
        let opened = self.world.reopen(false).await;
        self.check_kept(durable, &opened).await;
    }

    /// What was durable at the power cut, and nothing that was not taken.
    async fn check_kept(&mut self, durable: Offset, opened: &Reopened) {
        let ends = self.world.partition.ends();
        let context = format!("{durable}, {ends:?}, log start {}, {:?}", self.log_start, opened.cuts);
        assert!(ends.log_end >= durable && ends.log_end <= self.end(), "{context}");
        self.batches.retain(|batch| batch.end <= ends.log_end);
        assert_eq!(ends.log_end, self.end(), "{context}");
        self.note_new_beginning(ends.log_end);
        self.forget_sequences(true);
        self.check().await;
    }

    /// A log that is cut below its start begins anew, and so do its producers, as in Kafka. Where it ends at its start, it may
    /// have been.
    fn note_new_beginning(&mut self, end: Offset) {
        if end < self.log_start {
            self.batches.iter_mut().for_each(|batch| batch.producer = None);
        } else if end == self.log_start {
            self.uncertain.extend(self.batches.iter().filter_map(|batch| Some(batch.producer?.0)));
        }
    }

    /// Damages the files from a place on that was not flushed; gives the end of what is whole then.
    fn damage(&mut self, flushed: Offset) -> Offset {
        let stored = self.world.stored();
        let unflushed: Vec<_> = stored.iter().filter(|batch| batch.header.base_offset >= flushed).collect();
        let segments = self.world.files(paths::LOG);
        if unflushed.is_empty() {
            if let Some((_, path)) = segments.last() {
                let mut bytes = fs::read(path).expect("readable");
                bytes.extend((0..self.rng.usize(1..200)).map(|_| self.rng.u8(..)));
                fs::write(path, bytes).expect("garbage after the end");
            }
            return self.end();
        }
        let victim = unflushed[self.rng.usize(0..unflushed.len())];
        let length = victim.header.total_len();
        let path = paths::segment_file(&self.world.path(), victim.segment, paths::LOG);
        let mut bytes = fs::read(&path).expect("readable");
        let start = victim.position as usize;
        let before = bytes.clone();
        match self.rng.u8(0..4) {
            0 => {
                bytes.truncate(start + self.rng.usize(1..length));
            }
            1 => bytes[start + self.rng.usize(0..length - 1)..].fill(0),
            2 => {
                let at = start + self.rng.usize(16..length);
                bytes[at] ^= 1 << self.rng.u8(0..8);
            }
            _ => {
                let from = start + self.rng.usize(0..length - 1);
                bytes[from..].iter_mut().for_each(|byte| *byte = self.rng.u8(1..));
            }
        }
        fs::write(&path, &bytes).expect("damaged");
        if self.rng.bool() {
            segments.iter().filter(|(base, _)| *base > victim.segment).for_each(|(_, later)| {
                fs::remove_file(later).expect("the later segment's name was not durable");
            });
        }
        let same = before.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
        let hurt = stored
            .iter()
            .find(|batch| batch.segment == victim.segment && batch.position as usize + batch.header.total_len() > same);
        hurt.expect("something was changed").header.base_offset
    }

    /// An append to the index files that was not synced: zeros, or nothing of the last entries.
    fn tear_indexes(&mut self) {
        let Some((_, path)) = self.world.files(paths::LOG).last().cloned() else { return };
        for suffix in [paths::OFFSET_INDEX, paths::TIME_INDEX] {
            let path = path.with_extension(&suffix[1..]);
            let Ok(file) = File::options().write(true).open(path) else { continue };
            let bytes = file.metadata().expect("open").len();
            if self.rng.bool() {
                file.set_len(bytes + self.rng.u64(0..40)).expect("torn");
            }
        }
    }

    /// Files that only repeat what the log says may be missing. Returns whether all snapshots are still there.
    fn lose_derived_files(&mut self) -> bool {
        let mut snapshots_stay = true;
        if self.rng.u8(0..3) == 0 {
            for suffix in [paths::OFFSET_INDEX, paths::TIME_INDEX, paths::PRODUCER_SNAPSHOT] {
                for (_, path) in self.world.files(suffix) {
                    if self.rng.u8(0..3) == 0 {
                        match self.rng.bool() {
                            true => fs::remove_file(&path).expect("removed"),
                            false => File::options().write(true).open(&path).expect("open").set_len(5).expect("torn"),
                        }
                        snapshots_stay &= suffix != paths::PRODUCER_SNAPSHOT;
                    }
                }
            }
        }
        if self.rng.u8(0..4) == 0 {
            let _ = fs::remove_file(self.world.path().join(paths::LEADER_EPOCH_CHECKPOINT));
        }
        snapshots_stay
    }

    /// After a restart only each producer's last batch is surely known; without snapshots, not even that.
    fn forget_sequences(&mut self, snapshots_stay: bool) {
        self.recent.clear();
        self.snapshots_lost |= !snapshots_stay;
        let kept = self.world.stored().first().map_or(self.end(), |batch| batch.header.base_offset);
        for batch in &self.batches {
            let Some((id, ..)) = batch.producer else { continue };
            self.recent.insert(id, vec![*batch]);
            if self.snapshots_lost && batch.base < kept {
                self.uncertain.insert(id);
            } else if batch.base >= kept {
                self.uncertain.remove(&id);
            }
        }
    }

    async fn check(&mut self) {
        let partition = Rc::clone(&self.world.partition);
        let ends = partition.ends();
        assert_eq!((ends.log_start, ends.log_end), (self.log_start, self.end()));
        assert_eq!(ends.high_watermark, ends.log_end, "nothing waits for the disk");
        partition.core().check_invariants();
        let live: Vec<_> = self.batches.iter().filter(|batch| batch.end > self.log_start).copied().collect();
        let mut from = self.log_start;
        let mut seen = Vec::new();
        while from < ends.high_watermark {
            let read = self.world.read(from).await;
            assert!(!read.is_empty(), "nothing at {from} of {}", ends.high_watermark);
            from = read.last().expect("not empty").next_offset();
            seen.extend(read);
        }
        assert_eq!(seen.len(), live.len());
        for (header, known) in seen.iter().zip(&live) {
            assert_eq!((header.base_offset, header.next_offset()), (known.base, known.end));
            assert_eq!(LeaderEpoch(header.partition_leader_epoch), known.epoch);
            assert_eq!(partition.core().epochs().epoch_at(known.base.max(self.log_start)), Some(known.epoch));
            assert_eq!(header.max_timestamp, known.timestamp_ms);
        }
        self.check_one_offset(&live).await;
        self.check_times(&live).await;
        self.world.check_indexes();
    }

    async fn check_one_offset(&mut self, live: &[Known]) {
        let Some(last) = live.last() else { return };
        let offset = Offset(self.rng.i64(self.log_start.0..last.end.0));
        let read = self.world.read(offset).await;
        let holder = live.iter().find(|batch| batch.end > offset).expect("offsets have no gaps");
        assert_eq!(read.first().map(|header| header.base_offset), Some(holder.base));
    }

    async fn check_times(&mut self, live: &[Known]) {
        let partition = &self.world.partition;
        let segments: Vec<_> = partition.core().segments().iter().cloned().collect();
        let found = |batch: &Known| TimestampedOffset {
            timestamp_ms: batch.timestamp_ms,
            offset: batch.base.max(self.log_start),
            leader_epoch: batch.epoch,
        };
        let target = self.clock_ms - self.rng.i64(-20..600);
        let asked = (target, self.log_start);
        let first = times::first_since((&segments, &Default::default()), partition.files(), asked, 4096)
            .await
            .expect("readable");
        assert_eq!(first, live.iter().find(|batch| batch.timestamp_ms >= target).map(found), "since {target}");
        let greatest = times::greatest((&segments, &Default::default()), partition.files(), self.log_start, 4096)
            .await
            .expect("readable");
        let timed = live.iter().filter(|batch| batch.timestamp_ms >= 0);
        let expected = timed.rev().max_by_key(|batch| batch.timestamp_ms).map(found);
        let told: Vec<_> = segments.iter().map(|s| (s.base, s.size(), s.max_timestamp(), s.has_indexes())).collect();
        assert_eq!(greatest, expected, "the greatest timestamp of {told:?}");
    }
}

enum Expected {
    New,
    Refused,
    Retry(Known),
}

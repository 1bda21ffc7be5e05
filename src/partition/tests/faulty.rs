//! Random histories of a partition on a disk that fails: writes that are refused, cut short or hang, in the ring only or in segments
//! only; full disks that get space again; syncs that fail and take with them what they should have written.
//!
//! Whatever happens, what was acknowledged is there after the next start, at its offset, and nothing is claimed that is not. A failure
//! names its seed; `CORELOG_SEED` runs it alone.

use super::world::World;
use crate::base::config::TopicConfig;
use crate::base::disks::Health;
use crate::base::faults::{Act, Fault, Faults, Place};
use crate::base::ids::Offset;
use crate::base::seeds::{are_all, seeds};
use crate::log::paths;
use crate::log::testing::Batch;
use crate::partition::leader::Acks;
use crate::partition::waiters::AppendWait;
use fastrand::Rng;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;

const SEEDS: u64 = 1000;
const STEPS: usize = 45;
const RING_BYTES: u64 = 64 << 10;

/// What is wrong with the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ill {
    No,
    /// No segment takes more bytes, and sometimes no new name is made; what is written before is taken in part.
    Full,
    /// The next operation of that place fails.
    Fails(Place, Kind),
    /// The next write to the ring does not end.
    Hangs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Write(i32),
    Cut,
    Sync(i32),
}

#[derive(Clone, Default)]
struct Disk {
    ill: Rc<Cell<Option<Ill>>>,
    hung: Rc<Notify>,
    /// How often a fault was met.
    met: Rc<Cell<u64>>,
    rng: Rc<RefCell<Option<Rng>>>,
}

impl Disk {
    fn new(seed: u64) -> Disk {
        let disk = Disk::default();
        disk.rng.replace(Some(Rng::with_seed(seed)));
        disk
    }

    fn faults(&self) -> Faults {
        let disk = self.clone();
        Faults::by(move |place, act| disk.decide(place, act).inspect(|_| disk.met.set(disk.met.get() + 1)))
    }

    fn get(&self) -> Ill {
        self.ill.get().unwrap_or(Ill::No)
    }

    fn set(&self, ill: Ill) {
        self.ill.set(Some(ill));
        // Whatever hangs goes on.
        self.hung.notify_waiters();
    }

    fn decide(&self, place: Place, act: Act) -> Option<Fault> {
        let mut rng = self.rng.borrow_mut();
        let rng = rng.as_mut().expect("seeded");
        match (self.get(), place, act) {
            (Ill::Full, Place::Segment, Act::Write(bytes)) if rng.bool() && bytes > 1 => {
                Some(Fault::Short(rng.usize(1..bytes)))
            }
            (Ill::Full, Place::Segment, Act::Write(_)) => Some(Fault::Error(libc::ENOSPC)),
            (Ill::Fails(at, Kind::Write(errno)), _, Act::Write(_)) if at == place => self.once(Fault::Error(errno)),
            (Ill::Fails(at, Kind::Cut), _, Act::Write(bytes)) if at == place => {
                self.once(Fault::Short(rng.usize(..bytes)))
            }
            (Ill::Fails(at, Kind::Sync(errno)), _, Act::Sync) if at == place => self.once(Fault::Error(errno)),
            (Ill::Hangs, Place::Ring, Act::Write(_)) => Some(Fault::Hang(Rc::clone(&self.hung))),
            _ => None,
        }
    }

    fn once(&self, fault: Fault) -> Option<Fault> {
        self.ill.set(Some(Ill::No));
        Some(fault)
    }
}

/// A batch that was taken: which one is told by its timestamp.
struct Taken {
    base: Offset,
    end: Offset,
    id: i64,
    acks: Acks,
    wait: Rc<AppendWait>,
    /// None: not answered yet.
    acked: Option<bool>,
}

struct Run {
    rng: Rng,
    disk: Disk,
    world: World,
    next_id: i64,
    /// What the log holds or may hold, by base offset.
    taken: BTreeMap<Offset, Taken>,
}

#[derive(Default)]
struct Told {
    met: u64,
    offline: u64,
    healed: u64,
    acked: u64,
}

#[test]
fn what_was_acknowledged_outlives_a_failing_disk() {
    let seeds = seeds(SEEDS);
    let mut all = Told::default();
    for seed in seeds.clone() {
        let told = std::panic::catch_unwind(|| tokio_uring::start(run(seed)));
        let told = told.unwrap_or_else(|_| panic!("seed {seed} fails: CORELOG_SEED={seed} runs it alone"));
        all.met += told.met;
        all.offline += told.offline;
        all.healed += told.healed;
        all.acked += told.acked;
    }
    let enough = all.met > SEEDS && all.offline > SEEDS / 3 && all.healed > SEEDS / 4 && all.acked > SEEDS * 8;
    assert!(
        enough || !are_all(&seeds, SEEDS),
        "too little happened: {} {} {} {}",
        all.met,
        all.offline,
        all.healed,
        all.acked
    );
}

async fn run(seed: u64) -> Told {
    let mut rng = Rng::with_seed(seed);
    let config = TopicConfig {
        segment_bytes: rng.u32(300..3000),
        file_delete_delay_ms: 0,
        flush_messages: rng.bool().then_some(9),
        ..TopicConfig::default()
    };
    let disk = Disk::new(seed);
    let mut world = match rng.u8(0..4) {
        0 => World::new(config),
        _ => World::with_journal(config, RING_BYTES).await,
    };
    world.set_faults(disk.faults());
    let mut run = Run { rng, disk, world, next_id: 1, taken: BTreeMap::new() };
    run.restart(false).await;
    let mut told = Told::default();
    for _ in 0..STEPS {
        run.step(&mut told).await;
    }
    run.disk.set(Ill::No);
    run.restart(true).await;
    told.met = run.disk.met.get();
    told
}

impl Run {
    async fn step(&mut self, told: &mut Told) {
        let step = match self.health() {
            Health::Sound => self.rng.u32(0..95),
            Health::Full => self.rng.u32(30..100),
            // Nothing happens any more.
            Health::Offline => self.rng.u32(50..110),
        };
        match step {
            0..45 => self.append_some(),
            45..60 => tokio::time::sleep(Duration::from_micros(self.rng.u64(0..300))).await,
            60..76 => self.fall_ill(),
            76..87 => told.healed += u64::from(self.heal()),
            87..92 => self.read_all(false).await,
            _ => {
                told.offline += u64::from(self.health() == Health::Offline);
                self.restart(true).await;
            }
        }
        self.world.partition.core().check_invariants();
        told.acked += self.note_answers();
    }

    fn health(&self) -> Health {
        self.world.shared.disks.health(self.world.dir.path())
    }

    fn append_some(&mut self) {
        for _ in 0..self.rng.usize(1..6) {
            let acks = *self.rng.choice(&[Acks::Leader, Acks::All, Acks::All]).expect("some");
            let (records, value_bytes) = (self.rng.usize(1..4), self.rng.usize(1..200));
            let batch = Batch { records, value_bytes, timestamp_ms: self.next_id, ..Batch::default() };
            let wait = AppendWait::new();
            // Refused: the disk is full or gone, and nothing was promised.
            let Ok(appended) = self.world.append(batch, acks, &wait) else { continue };
            let (base, end) = (appended.base_offset, appended.end);
            let before = self.taken.insert(base, Taken { base, end, id: self.next_id, acks, wait, acked: None });
            assert!(before.is_none(), "offset {base} was given twice");
            self.next_id += 1;
        }
    }

    fn fall_ill(&mut self) {
        if self.disk.get() != Ill::No {
            return;
        }
        let errno = *self.rng.choice(&[libc::EIO, libc::ENOSPC, libc::EROFS]).expect("some");
        let place = *self.rng.choice(&[Place::Segment, Place::Ring]).expect("some");
        self.disk.set(match self.rng.u8(0..12) {
            0..5 => Ill::Full,
            5 | 6 => Ill::Fails(place, Kind::Write(errno)),
            7 => Ill::Fails(place, Kind::Cut),
            8 => Ill::Fails(Place::Segment, Kind::Sync(errno)),
            9 => Ill::Fails(Place::Names, Kind::Sync(errno)),
            _ => Ill::Hangs,
        });
    }

    /// There is space again. Whether there was none.
    fn heal(&mut self) -> bool {
        self.disk.set(Ill::No);
        let was_full = self.health() == Health::Full;
        self.world.shared.disks.set_full(self.world.dir.path(), false);
        self.world.partition.heed_disk();
        was_full
    }

    /// Notes who was told what; how many were told that their records are safe.
    fn note_answers(&mut self) -> u64 {
        let mut acked = 0;
        for taken in self.taken.values_mut().filter(|taken| taken.acked.is_none() && taken.wait.is_done()) {
            let done = std::pin::pin!(taken.wait.done());
            let answer = done.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
            let std::task::Poll::Ready(lost) = answer else { panic!("it was done") };
            taken.acked = Some(lost.is_empty());
            acked += u64::from(lost.is_empty());
        }
        acked
    }

    /// Everything below the high watermark is what was sent; with `all`, so is everything that was acknowledged.
    async fn read_all(&mut self, all: bool) {
        if self.world.partition.core().failure().is_some() {
            return;
        }
        let ends = self.world.partition.ends();
        let mut from = ends.log_start;
        while from < ends.high_watermark {
            let read = self.world.read(from).await;
            assert!(!read.is_empty(), "nothing at {from} of {ends:?}");
            for header in &read {
                assert_eq!(header.base_offset, from, "a gap");
                let taken = self.taken.get(&from).unwrap_or_else(|| panic!("nobody sent what is at {from}"));
                assert_eq!((header.max_timestamp, header.next_offset()), (taken.id, taken.end));
                from = taken.end;
            }
        }
        if all {
            self.taken.retain(|_, taken| taken.end <= ends.log_end);
            assert_eq!(self.taken.values().next_back().map_or(ends.log_start, |last| last.end), ends.log_end);
        }
    }

    /// The process ends at this instant, or stops in good order where it can; what no sync has covered may be gone. Then it starts again,
    /// on a sound disk.
    async fn restart(&mut self, may_lose: bool) {
        self.note_answers();
        let (durable, written) = self.world.partition.durable_and_written();
        let flushed = self.world.partition.ends().flushed;
        let copy = self.world.copy();
        let ill = self.disk.get();
        self.disk.set(Ill::No);
        self.world.shared.disks.take_offline(self.world.dir.path(), "the process ends");
        self.world.partition.heed_disk();
        self.world.quiet().await;
        self.world.dir = copy;
        let loses = may_lose && self.rng.bool();
        if loses {
            self.lose_unsynced(flushed);
        }
        self.world.reopen(false).await;
        let ends = self.world.partition.ends();
        let safe = |taken: &Taken| taken.acked == Some(true) && (taken.acks == Acks::All || !loses);
        for taken in self.taken.values().filter(|taken| safe(taken)) {
            assert!(
                taken.end <= ends.log_end,
                "{}..{} was acknowledged ({:?}), the log ends at {} ({ill:?}, durable {durable}, written {written}, flushed {flushed})",
                taken.base,
                taken.end,
                taken.acks,
                ends.log_end
            );
        }
        assert!(ends.log_end >= durable, "durable was {durable}, the log ends at {}", ends.log_end);
        self.taken.retain(|_, taken| taken.end <= ends.log_end);
        // What the crash left unanswered is answered by nobody any more.
        self.taken.values_mut().for_each(|taken| taken.acked = taken.acked.or(Some(false)));
        self.read_all(true).await;
    }

    /// What was not synced is gone from some place on: so it is after a power cut, and after a sync that failed.
    fn lose_unsynced(&mut self, flushed: Offset) {
        let stored = self.world.stored();
        let unflushed: Vec<_> = stored.iter().filter(|batch| batch.header.base_offset >= flushed).collect();
        let Some(victim) = self.rng.choice(&unflushed) else { return };
        let path = paths::segment_file(&self.world.path(), victim.segment, paths::LOG);
        let mut bytes = fs::read(&path).expect("readable");
        let from = victim.position as usize + self.rng.usize(0..victim.header.total_len());
        match self.rng.bool() {
            true => bytes.truncate(from),
            false => bytes[from..].fill(0),
        }
        fs::write(&path, bytes).expect("written");
        if self.rng.bool() {
            let later = self.world.files(paths::LOG).into_iter().filter(|(base, _)| *base > victim.segment);
            later.for_each(|(_, path)| fs::remove_file(path).expect("its name was not durable"));
        }
    }
}

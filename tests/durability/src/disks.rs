//! Sick disks under load: a broker with two log directories, one of which falls ill.
//!
//! A disk that *fails* (EIO, read-only, failed syncs, a ring that cannot be written): its partitions answer KAFKA_STORAGE_ERROR, the others
//! do not notice. A disk that is *full*: producers are refused, consumers read on, and when there is space again records are
//! taken without a restart. Either way, what was acknowledged on either disk is there after the next start, and nothing else was claimed.

use crate::broker::{Broker, Launch, Subject, free_ports};
use crate::kill::settings;
use crate::ledger::{Counts, Promise};
use crate::power::mount::{Illness, Mounted, SharedDisk};
use crate::world::{Load, Sickness, Slot, World, connect};
use anyhow::{Context, Result, bail, ensure};
use kafka_protocol::messages::DescribeLogDirsRequest;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SEGMENT_BYTES: u32 = 192 << 10;
const STORAGE_ERROR: i16 = 56;
/// How long the broker may take to notice that there is space, or that a disk is gone, and to stop.
const PATIENCE: Duration = Duration::from_secs(15);
/// Space that is left to a disk that is about to be full: sometimes none, sometimes less than the broker keeps free.
const LEFT_BYTES: [u64; 3] = [0, 100 << 10, 5 << 20];

/// What all rounds did.
#[derive(Debug, Default)]
pub struct Outcome {
    pub rounds: u32,
    pub failed: u32,
    pub healed: u32,
    pub counts: Counts,
}

pub fn run(subject: &Subject, scratch: &Path, seed: u64, rounds: u32) -> Result<Outcome> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut outcome = Outcome::default();
    only_disk_fails(subject, &scratch.join("only"), &mut random).context("with the only disk failing")?;
    for round in 0..rounds {
        let illness = match round % 5 {
            0 => Illness::Full { left: LEFT_BYTES[random.usize(..LEFT_BYTES.len())] },
            1 => Illness::Fails,
            2 => Illness::ReadOnly,
            3 => Illness::SyncsFail,
            _ => Illness::RingFails,
        };
        // The store lies in the first one: it may be the sick one.
        let sick_first = random.bool();
        let data = scratch.join(format!("round-{round}"));
        one_round(subject, &data, (illness, sick_first), &mut random, &mut outcome).with_context(|| {
            format!("round {round}, {illness:?}, {sick_first} (data and log in {})", data.display())
        })?;
        std::fs::remove_dir_all(&data)?;
        outcome.rounds += 1;
    }
    ensure!(outcome.counts.acked > u64::from(rounds) * 10, "too little was done to prove anything: {outcome:?}");
    Ok(outcome)
}

/// With nothing left to serve from, the process ends, and says so by its exit code; what was acknowledged is there when the disk is.
fn only_disk_fails(subject: &Subject, data: &Path, random: &mut fastrand::Rng) -> Result<()> {
    std::fs::create_dir_all(data)?;
    let disk = SharedDisk::new(random.u64(..));
    let mounted = Mounted::new(&disk, data)?;
    let launch = Launch {
        binary: subject.binary.clone(),
        data: data.join("data"),
        log: data.with_extension("log"),
        port: free_ports()?,
        settings: with_small_journals(subject),
    };
    let broker = launch.start()?;
    let mut world = World::create(launch.port, random.u64(..), SEGMENT_BYTES)?;
    let mut status = None;
    world.during(|load| {
        std::thread::sleep(Duration::from_millis(300));
        load.end();
        disk.fall_ill(Illness::Fails);
        status = Some(broker.ended(PATIENCE)?);
        Ok(())
    })?;
    ensure!(status.is_some_and(|status| status.code() == Some(1)), "it ended with {status:?}");
    disk.fall_ill(Illness::No);
    let broker = launch.start()?;
    world.check(|_, _| Promise::Kept)?;
    broker.stop()?;
    mounted.unmount()
}

fn one_round(
    subject: &Subject,
    data: &Path,
    (illness, sick_first): (Illness, bool),
    random: &mut fastrand::Rng,
    outcome: &mut Outcome,
) -> Result<()> {
    let began = Instant::now();
    let (healthy, mount_point) = (data.join("healthy"), data.join("disk"));
    std::fs::create_dir_all(&mount_point)?;
    let disk = SharedDisk::new(random.u64(..));
    let mut mounted = Mounted::new(&disk, &mount_point)?;
    let sick = mount_point.join("data");
    let order = if sick_first { [&sick, &healthy] } else { [&healthy, &sick] };
    let launch = Launch {
        binary: subject.binary.clone(),
        data: PathBuf::from(order.map(|path| path.display().to_string()).join(",")),
        log: data.join("broker.log"),
        port: free_ports()?,
        settings: with_small_journals(subject),
    };
    let broker = launch.start()?;
    let mut world = World::create(launch.port, random.u64(..), SEGMENT_BYTES)?;
    // All partitions get their directories, which tell where they are.
    world.during(|load| {
        std::thread::sleep(Duration::from_millis(300));
        load.end();
        broker.stop()
    })?;
    let slots = world.slots().to_vec();
    let is_sick = |(_, slot): &&(u32, Slot)| directory(&sick, slot).is_dir();
    let on_sick: BTreeSet<u32> = slots.iter().filter(is_sick).map(|(at, _)| *at).collect();
    ensure!(!on_sick.is_empty() && on_sick.len() < slots.len(), "all partitions are on one disk");
    let broker = launch.start()?;
    let harm = Harm { launch: &launch, disk: &disk, sick: &sick, illness, on_sick: &on_sick };
    let after_ms = random.u64(100..400);
    world.during(|load| harm.run(load, broker, &slots, after_ms))?;
    // What such a disk did not sync may be gone.
    mounted.unmount()?;
    if !matches!(illness, Illness::Full { .. }) {
        disk.forget(|disk| disk.cut(random));
    }
    mounted = Mounted::new(&disk, &mount_point)?;
    let broker = launch.start()?;
    let counts = world.check(|acks, slot| match (acks, on_sick.contains(&slot)) {
        (1, true) if !matches!(illness, Illness::Full { .. }) => Promise::TailMayGo,
        _ => Promise::Kept,
    })?;
    broker.stop()?;
    mounted.unmount()?;
    match illness {
        Illness::Full { .. } => outcome.healed += 1,
        _ => outcome.failed += 1,
    }
    outcome.counts.add(counts);
    println!(
        "{illness:?}, the store on the {} disk: {} of {} partitions sick; {} batches, {} acknowledged ones in place ({} ms)",
        if sick_first { "sick" } else { "other" },
        on_sick.len(),
        slots.len(),
        counts.batches,
        counts.acked,
        began.elapsed().as_millis()
    );
    Ok(())
}

fn with_small_journals(subject: &Subject) -> Vec<(String, String)> {
    let mut settings = settings(subject);
    settings.push(("log.journal.bytes".to_owned(), (1 << 20).to_string()));
    settings
}

fn directory(dir: &Path, slot: &Slot) -> PathBuf {
    dir.join(format!("{}-{}", slot.topic, slot.partition))
}

/// What is done to the broker under load.
struct Harm<'a> {
    launch: &'a Launch,
    disk: &'a SharedDisk,
    sick: &'a Path,
    illness: Illness,
    on_sick: &'a BTreeSet<u32>,
}

impl Harm<'_> {
    fn run(&self, load: &Load, broker: Broker, slots: &[(u32, Slot)], after_ms: u64) -> Result<()> {
        std::thread::sleep(Duration::from_millis(after_ms));
        let is_full = matches!(self.illness, Illness::Full { .. });
        load.sicken(if is_full { Sickness::Full } else { Sickness::Offline }, self.on_sick.clone());
        self.disk.fall_ill(self.illness);
        self.until("the sick disk is not noticed", || Ok(load.refused() > 0))?;
        if is_full {
            self.describe(0)?;
            std::thread::sleep(Duration::from_millis(300));
            self.disk.fall_ill(Illness::No);
            let before = load.acked_on_sick();
            self.until("nothing is taken although there is space", || Ok(load.acked_on_sick() > before + 20))?;
            // Whoever was refused has come back by then.
            std::thread::sleep(Duration::from_millis(700));
            load.recover();
            std::thread::sleep(Duration::from_millis(200));
        } else {
            self.until("metadata names leaders on the sick disk", || self.leaders_are_gone(slots))?;
            self.describe(STORAGE_ERROR)?;
            let before = load.acked_elsewhere();
            self.until("the others notice", || Ok(load.acked_elsewhere() > before + 20))?;
        }
        load.end();
        let began = Instant::now();
        broker.stop()?;
        ensure!(began.elapsed() < PATIENCE, "the stop took {:?}", began.elapsed());
        self.disk.fall_ill(Illness::No);
        Ok(())
    }

    fn until(&self, otherwise: &str, done: impl Fn() -> Result<bool>) -> Result<()> {
        let give_up = Instant::now() + PATIENCE;
        while !done()? {
            ensure!(Instant::now() < give_up, "{otherwise} after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Partitions on the sick disk have no leader in metadata; the others do.
    fn leaders_are_gone(&self, slots: &[(u32, Slot)]) -> Result<bool> {
        let leaders = crate::world::leaders(self.launch.port)?;
        for (at, slot) in slots {
            let led = leaders.get(&(slot.topic.clone(), slot.partition)).copied().flatten();
            match (self.on_sick.contains(at), led) {
                (true, Some(_)) => return Ok(false),
                (false, None) => bail!("{slot:?} has no leader, and its disk is sound"),
                _ => {}
            }
        }
        Ok(true)
    }

    /// DescribeLogDirs tells this of the sick disk, and of the other that it is sound.
    fn describe(&self, expected: i16) -> Result<()> {
        let mut connection = connect(self.launch.port)?;
        let answer = connection.call(|_| DescribeLogDirsRequest::default().with_topics(None))?;
        ensure!(answer.results.len() == 2, "{answer:?}");
        for dir in answer.results {
            let is_sick = Path::new(dir.log_dir.as_str()) == self.sick;
            let due = if is_sick { expected } else { 0 };
            ensure!(dir.error_code == due, "DescribeLogDirs: {} has error {}", dir.log_dir.as_str(), dir.error_code);
            ensure!(dir.error_code == 0 || dir.topics.is_empty(), "partitions of an offline directory are told");
        }
        Ok(())
    }
}

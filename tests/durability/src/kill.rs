//! kill -9 under load, again and again on the same directory: whatever was acknowledged is there afterwards.
//!
//! What the kernel has taken outlives the process, so nothing at all may be lost, whatever the acks.

use crate::broker::{Broker, Launch, Subject, free_ports};
use crate::ledger::{Counts, Promise};
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::{Duration, Instant};

/// A directory lives so long; then a new one is begun, so that the first start is tried often too.
const ROUNDS_PER_LIFE: u32 = 5;
const LOAD_MS: std::ops::Range<u64> = 200..1_000;
const SEGMENT_BYTES: u32 = 1 << 20;

/// What all rounds did.
#[derive(Debug, Default)]
pub struct Outcome {
    pub rounds: u32,
    pub kills: u32,
    pub counts: Counts,
}

pub fn run(subject: &Subject, scratch: &Path, seed: u64, rounds: u32) -> Result<Outcome> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut outcome = Outcome::default();
    let mut life = 0;
    while outcome.rounds < rounds {
        let data = scratch.join(format!("life-{life}"));
        let launch = Launch {
            binary: subject.binary.clone(),
            data: data.join("data"),
            log: scratch.join("broker.log"),
            port: free_ports()?,
            settings: settings(subject),
        };
        std::fs::create_dir_all(&data)?;
        let count = ROUNDS_PER_LIFE.min(rounds - outcome.rounds);
        one_life(&launch, &mut random, count, &mut outcome)
            .with_context(|| format!("round {} (data and log in {})", outcome.rounds + 1, scratch.display()))?;
        std::fs::remove_dir_all(&data)?;
        life += 1;
    }
    let (least, counts) = (u64::from(rounds) * 10, outcome.counts);
    let is_enough = counts.acked > least && counts.seen > least && counts.told > least;
    ensure!(is_enough, "too little was done to prove anything: {outcome:?}");
    Ok(outcome)
}

/// Checkpoints are written often, so that recovery begins at many places; coordinators have several partitions of small segments.
pub fn settings(subject: &Subject) -> Vec<(String, String)> {
    let own = [
        ("log.flush.offset.checkpoint.interval.ms", "200"),
        ("log.flush.start.offset.checkpoint.interval.ms", "200"),
        ("offsets.topic.num.partitions", "4"),
        ("offsets.topic.segment.bytes", "196608"),
        ("offsets.topic.replication.factor", "1"),
        ("group.initial.rebalance.delay.ms", "0"),
        // Members are asked after everything was read back.
        ("group.consumer.session.timeout.ms", "60000"),
    ];
    let own = own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    own.chain(subject.settings.iter().cloned()).collect()
}

fn one_life(launch: &Launch, random: &mut fastrand::Rng, rounds: u32, outcome: &mut Outcome) -> Result<()> {
    let mut broker = launch.start()?;
    let mut world = World::create(launch.port, random.u64(..), SEGMENT_BYTES)?.with_groups()?;
    for round in 0..rounds {
        let load_time = Duration::from_millis(random.u64(LOAD_MS));
        world.during(|load| {
            std::thread::sleep(load_time);
            load.end();
            broker.kill()
        })?;
        outcome.kills += 1;
        broker = restart(launch, random, outcome)?;
        let began = Instant::now();
        let counts = world.check(|_, _| Promise::Kept)?;
        outcome.rounds += 1;
        if round + 1 == rounds {
            outcome.counts.add(counts);
        }
        println!(
            "round {}: {} ms of load; {} batches, {} acknowledged and {} seen ones in place, {} answers to groups, read back in {} ms",
            outcome.rounds,
            load_time.as_millis(),
            counts.batches,
            counts.acked,
            counts.seen,
            counts.told,
            began.elapsed().as_millis()
        );
    }
    // A stop in good order keeps it all as well.
    broker.stop()?;
    let broker = launch.start()?;
    world.check(|_, _| Promise::Kept).context("after a stop in good order")?;
    broker.kill()
}

/// Starts it again; now and then it is killed once more while it recovers.
fn restart(launch: &Launch, random: &mut fastrand::Rng, outcome: &mut Outcome) -> Result<Broker> {
    if random.u8(..4) == 0 {
        let broker = launch.spawn()?;
        std::thread::sleep(Duration::from_micros(random.u64(..60_000)));
        broker.kill()?;
        outcome.kills += 1;
    }
    launch.start()
}

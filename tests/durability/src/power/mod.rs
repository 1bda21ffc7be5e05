//! Power cuts under load: the broker's data lies on a file system that forgets what was not synced.
//!
//! A cut stops the disk at an arbitrary instant, then the broker is killed, and a seeded choice of what had not been synced
//! is dropped; the broker starts on what is left. With `log.flush.policy=disk` no acknowledged acks=all batch may be gone,
//! nor any that a consumer had seen, nor what a coordinator told a consumer group; acks=1 may lose the end of a log. With `os` every acks may, and the log must still be
//! whole: no gap, nothing that was not sent, nothing lost from its middle.

mod disk;
pub mod mount;
mod proof;

use crate::broker::{Broker, Launch, Subject, free_ports};
use crate::kill::settings;
use crate::ledger::{Counts, Promise};
use crate::world::World;
use anyhow::{Context, Result, ensure};
use disk::Forgotten;
use mount::{Mounted, SharedDisk};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const CUTS_PER_LIFE: u32 = 5;
const LOAD_MS: std::ops::Range<u64> = 100..900;
/// Small, so that many cuts fall near the making of a segment.
const SEGMENT_BYTES: u32 = 192 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Policy {
    Disk,
    Os,
}

/// What all cuts did.
#[derive(Debug, Default)]
pub struct Outcome {
    pub cuts: u32,
    pub counts: Counts,
    pub forgotten_sectors: u64,
    pub forgotten_steps: u64,
    pub syncs: u64,
}

/// Whether a FUSE file system can be mounted here; if not, why.
pub fn obstacle(scratch: &Path) -> Result<Option<String>> {
    if !Path::new("/dev/fuse").exists() {
        return Ok(Some("no /dev/fuse".to_owned()));
    }
    let at = scratch.join("probe");
    std::fs::create_dir_all(&at)?;
    Ok(match Mounted::new(&SharedDisk::new(0), &at) {
        Ok(mounted) => {
            mounted.unmount()?;
            proof::run(&at).context("the file system of this test is not what it should be")?;
            None
        }
        Err(error) => {
            Some(format!("/dev/fuse is there, and {error:#}; it needs root, or fusermount3 of the package fuse3"))
        }
    })
}

pub fn run(subject: &Subject, scratch: &Path, seed: u64, cuts: u32, policy: Policy) -> Result<Outcome> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut outcome = Outcome::default();
    while outcome.cuts < cuts {
        let count = CUTS_PER_LIFE.min(cuts - outcome.cuts);
        let mut life = Life::begin(subject, scratch, policy, random.fork())?;
        let lived = life.live(count, &mut outcome);
        outcome.syncs += life.disk.syncs();
        if lived.is_err() {
            life.keep(scratch);
        }
        lived.with_context(|| format!("cut {} (data and log in {})", outcome.cuts + 1, scratch.display()))?;
        life.end()?;
    }
    // A disk that forgot nothing, or a broker that took nothing, would prove nothing.
    let counts = outcome.counts;
    let proves = outcome.forgotten_sectors > 0
        && outcome.syncs > 0
        && counts.acked > 0
        && counts.seen > 0
        && counts.told > u64::from(cuts);
    ensure!(proves, "too little was done to prove anything: {outcome:?}");
    Ok(outcome)
}

/// One disk from its formatting on.
struct Life {
    launch: Launch,
    policy: Policy,
    random: fastrand::Rng,
    // Before the mount: a broker must end before its disk can go.
    broker: Option<Broker>,
    mounted: Option<Mounted>,
    disk: SharedDisk,
    mount_point: std::path::PathBuf,
}

impl Life {
    fn begin(subject: &Subject, scratch: &Path, policy: Policy, mut random: fastrand::Rng) -> Result<Life> {
        let mount_point = scratch.join("disk");
        std::fs::create_dir_all(&mount_point)?;
        let disk = SharedDisk::new(random.u64(..));
        let mounted = Mounted::new(&disk, &mount_point)?;
        let word = if policy == Policy::Disk { "disk" } else { "os" };
        let mut settings = settings(subject);
        settings.push(("log.flush.policy".to_owned(), word.to_owned()));
        let launch = Launch {
            binary: subject.binary.clone(),
            data: mount_point.join("data"),
            log: scratch.join("broker.log"),
            port: free_ports()?,
            settings,
        };
        Ok(Life { launch, policy, random, broker: None, mounted: Some(mounted), disk, mount_point })
    }

    fn live(&mut self, cuts: u32, outcome: &mut Outcome) -> Result<()> {
        self.broker = Some(self.launch.start()?);
        let mut world = World::create(self.launch.port, self.random.u64(..), SEGMENT_BYTES)?.with_groups()?;
        for _ in 0..cuts {
            let load_time = Duration::from_millis(self.random.u64(LOAD_MS));
            let (disk, broker) = (self.disk.clone(), self.broker.take().context("no broker")?);
            world.during(|load| {
                std::thread::sleep(load_time);
                load.end();
                disk.power_off();
                broker.end_hard();
                Ok(())
            })?;
            let mut forgotten = self.forget()?;
            if self.random.u8(..3) == 0 {
                // Once more, while it recovers.
                let broker = self.launch.spawn()?;
                std::thread::sleep(Duration::from_micros(self.random.u64(..80_000)));
                self.disk.power_off();
                broker.end_hard();
                let more = self.forget()?;
                forgotten =
                    Forgotten { sectors: forgotten.sectors + more.sectors, steps: forgotten.steps + more.steps };
            }
            self.broker = Some(self.launch.start()?);
            let began = Instant::now();
            let policy = self.policy;
            let counts = world.check(|acks, _| match (acks, policy) {
                (-1, Policy::Disk) => Promise::Kept,
                _ => Promise::TailMayGo,
            })?;
            outcome.cuts += 1;
            outcome.counts.add(counts);
            outcome.forgotten_sectors += forgotten.sectors;
            outcome.forgotten_steps += forgotten.steps;
            println!(
                "cut {} after {} ms of load: the disk forgot {} sectors and {} changes of names; {} batches, \
                 {} acknowledged ones looked for, and {} answers to groups, {} lost with leave; read back in {} ms",
                outcome.cuts,
                load_time.as_millis(),
                forgotten.sectors,
                forgotten.steps,
                counts.batches,
                counts.acked,
                counts.told,
                counts.lost,
                began.elapsed().as_millis()
            );
        }
        Ok(())
    }

    /// Drops what was not synced, and makes the rest available again with an empty page cache.
    fn forget(&mut self) -> Result<Forgotten> {
        self.mounted.take().context("no disk is mounted")?.unmount()?;
        let random = &mut self.random;
        let forgotten = self.disk.forget(|disk| disk.cut(random));
        self.mounted = Some(Mounted::new(&self.disk, &self.mount_point)?);
        Ok(forgotten)
    }

    fn end(mut self) -> Result<()> {
        self.broker.take().context("no broker")?.kill()?;
        self.mounted.take().context("no disk is mounted")?.unmount()
    }

    /// A failure is understood by what lies on the disk.
    fn keep(&mut self, scratch: &Path) {
        self.broker = None;
        let copied = Command::new("cp").arg("-r").arg(&self.launch.data).arg(scratch.join("data")).status();
        println!("the disk's content was copied: {copied:?}");
    }
}

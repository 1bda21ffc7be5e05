//! Durability under load: producers, consumers and groups of the real broker, which is killed, or whose disk forgets what was not
//! synced; afterwards the log is compared with what was acknowledged and seen.
//!
//! `kill` ends the broker with SIGKILL (`kill.rs`); `power` cuts its disk's power as well (`power`); `disks` lets one of its two disks
//! fall ill (`disks.rs`). What is checked stands in `ledger.rs`. Everything random follows from `--seed`, as far as the scheduling of threads and processes lets it.

mod broker;
mod content;
mod disks;
mod group;
mod kill;
mod ledger;
mod mark;
mod power;
mod reader;
mod world;
mod writer;

use anyhow::{Context, Result};
use broker::Subject;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

#[derive(Parser)]
#[command(about = "Kills Corelog under load and looks for what it had acknowledged")]
struct Arguments {
    #[command(subcommand)]
    command: Harm,
    /// Corelog's binary.
    #[arg(long, global = true, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/corelog"))]
    corelog: PathBuf,
    /// Repeats the choices of a former run.
    #[arg(long, global = true)]
    seed: Option<u64>,
    /// A setting of the broker, as in `--set log.flush.method=fdatasync`.
    #[arg(long = "set", global = true, value_parser = setting)]
    settings: Vec<(String, String)>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("name=value is wanted")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[derive(Subcommand)]
enum Harm {
    /// kill -9 and restart, again and again.
    Kill {
        #[arg(long, default_value_t = 50)]
        rounds: u32,
    },
    /// Power cuts: what was not synced is forgotten.
    Power {
        #[arg(long, default_value_t = 20)]
        cuts: u32,
        /// log.flush.policy
        #[arg(long, value_enum, default_value_t = power::Policy::Disk)]
        policy: power::Policy,
    },
    /// One of two disks fails, or is full for a while.
    Disks {
        #[arg(long, default_value_t = 5)]
        rounds: u32,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("--seed {seed}");
    let began = Instant::now();
    let outcome = run(&arguments, seed);
    let seconds = began.elapsed().as_secs_f32();
    match outcome {
        Ok(told) if told.starts_with("SKIPPED") => {
            println!("{told}");
            ExitCode::SUCCESS
        }
        Ok(told) => {
            println!("PASSED after {seconds:.1} s: {told}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("FAILED after {seconds:.1} s, --seed {seed}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, seed: u64) -> Result<String> {
    let binary = arguments
        .corelog
        .canonicalize()
        .with_context(|| format!("no {}: build it, or name another with --corelog", arguments.corelog.display()))?;
    let scratch = tempfile::Builder::new().prefix("corelog-durability-").tempdir()?;
    let under_test = Subject { binary, settings: arguments.settings.clone() };
    let outcome = match arguments.command {
        Harm::Kill { rounds } => kill::run(&under_test, scratch.path(), seed, rounds).map(|outcome| {
            let counts = outcome.counts;
            format!(
                "{} rounds, {} kills; {} acknowledged batches (and {} that a consumer had seen) are where they were, none lost, nor any \
                 of {} answers to consumer groups",
                outcome.rounds, outcome.kills, counts.acked, counts.seen, counts.told
            )
        }),
        Harm::Disks { rounds } => {
            if let Some(why) = power::obstacle(scratch.path())? {
                return Ok(format!("SKIPPED: {why}"));
            }
            disks::run(&under_test, scratch.path(), seed, rounds).map(|outcome| {
                format!(
                    "{} rounds, {} with a disk that failed and {} with a full one that had space again; {} acknowledged batches \
                     are where they were, none lost",
                    outcome.rounds, outcome.failed, outcome.healed, outcome.counts.acked
                )
            })
        }
        Harm::Power { cuts, policy } => {
            if let Some(why) = power::obstacle(scratch.path())? {
                return Ok(format!("SKIPPED: {why}"));
            }
            power::run(&under_test, scratch.path(), seed, cuts, policy).map(|outcome| {
                let counts = outcome.counts;
                format!(
                    "{} cuts with log.flush.policy={policy:?}; {} syncs, {} sectors and {} changes of names forgotten; of {} \
                     acknowledged batches and {} answers to consumer groups {} were lost, all with leave",
                    outcome.cuts,
                    outcome.syncs,
                    outcome.forgotten_sectors,
                    outcome.forgotten_steps,
                    counts.acked,
                    counts.told,
                    counts.lost
                )
            })
        }
    };
    if outcome.is_err() {
        // The data is what a failure is understood by.
        println!("kept: {}", scratch.keep().display());
    }
    outcome
}

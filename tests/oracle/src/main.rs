//! Apache Kafka as the oracle: a differential test.
//!
//! Boots Apache Kafka 3.9 and Corelog, sends both the same requests as raw frames, valid and invalid, scripted
//! (`cases/`) and generated from a seed (`generated.rs`), in every version that both serve, and compares the decoded
//! answers field by field. What must differ is replaced by its meaning (`normalise.rs`); what may differ is listed with
//! reasons (`allowed.rs`); anything else fails the run and is printed with its request and both answers.
//!
//! `--kafka4` holds the new group protocol (KIP-848) against Apache Kafka 4, and nothing else: `cases/consumer_groups.rs`.
//! `--itself` compares Kafka with a second Kafka: nothing may differ then, not even what is allowed. It proves the
//! cases and the normalising.
//!
//! To add an API: a file in `cases/` with its scripts, a line in `cases/mod.rs`, and in `normalise.rs` the lists that
//! have no order. To add an oracle: another constructor in `boot.rs`.

mod allowed;
mod batches;
mod boot;
mod cases;
mod diff;
mod generated;
mod normalise;
mod pair;
mod report;
mod requests;
mod shards;
mod tree;
mod wire;

use anyhow::{Context, Result};
use boot::Broker;
use clap::Parser;
use pair::{Pair, Side};
use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

#[derive(Parser)]
#[command(about = "Compares Corelog's answers with Apache Kafka's")]
struct Arguments {
    /// Corelog's binary.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/corelog"))]
    corelog: PathBuf,
    /// Directory with the jars of Apache Kafka 3.9.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/kafka39/libs"))]
    kafka_libs: PathBuf,
    /// Directory with the jars of Apache Kafka 4.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/kafka41/libs"))]
    kafka4_libs: PathBuf,
    /// The new group protocol (KIP-848), with Apache Kafka 4 as the oracle, and nothing else.
    #[arg(long)]
    kafka4: bool,
    /// Compare Kafka with Kafka.
    #[arg(long)]
    itself: bool,
    /// Only scripts whose names contain this; no generated sequences then.
    #[arg(long)]
    only: Option<String>,
    /// Reproduces the generated sequences of a former run.
    #[arg(long)]
    seed: Option<u64>,
    /// How many generated sequences.
    #[arg(long, default_value_t = 150)]
    sequences: u32,
    /// Print requests and answers whole, however long.
    #[arg(long)]
    whole: bool,
    /// Print a line for every difference as it is found.
    #[arg(long)]
    every: bool,
    /// Print the exchanges whose requests contain this text.
    #[arg(long)]
    trace: Option<String>,
    /// First port to try.
    #[arg(long, default_value_t = 39092)]
    port: u16,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let began = Instant::now();
    let (mut oracle, mut subject) = brokers(&arguments)?;
    oracle.ready()?;
    subject.ready()?;
    println!("{} and {} answer after {:.1} s", oracle.name, subject.name, began.elapsed().as_secs_f32());

    let side = |index, broker: &Broker| Side::new(index, broker.name, broker.address, broker.places.clone());
    let sides = (side(0, &oracle), side(1, &subject));
    let report = Report::new([oracle.name, subject.name], !arguments.itself, arguments.every, arguments.trace.clone());
    let mut pair = Pair::new(sides.0, sides.1, report);
    match arguments.kafka4 {
        true => cases::prepare4(&mut pair),
        false => cases::prepare(&mut pair),
    }
    .context("preparing the topics")?;
    println!("topics are there after {:.1} s", began.elapsed().as_secs_f32());
    let filter = arguments.only.as_deref();
    let scripts = if arguments.kafka4 { cases::SCRIPTS4 } else { cases::SCRIPTS };
    for (name, run) in scripts.iter().filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter))) {
        let began = Instant::now();
        pair.case(*name);
        if let Err(error) = run(&mut pair) {
            pair.report.fail(name, format!("the script broke off: {error:#}"));
        }
        println!("{name}: {:.1} s", began.elapsed().as_secs_f32());
        if !oracle.is_alive() || !subject.is_alive() {
            println!("{}:\n{}\n{}:\n{}", oracle.name, oracle.log_tail(), subject.name, subject.log_tail());
            anyhow::bail!("a broker ended during {name}");
        }
    }
    if filter.is_none() && !arguments.kafka4 {
        let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
        println!("generated sequences: --seed {seed}");
        generated::run(&mut pair, seed, arguments.sequences)?;
    }
    let mut passed = pair.report.finish(arguments.whole);
    if filter.is_none() && !arguments.itself {
        for rule in pair
            .report
            .unused()
            .filter(|rule| (rule.case.starts_with("new-group") || rule.case == "prepare") == arguments.kafka4)
        {
            println!("ALLOWED but not seen: {} {} in {} ({})", rule.api, rule.path, rule.case, rule.reason);
        }
    }
    drop((oracle, subject));
    if !arguments.itself && !arguments.kafka4 && filter.is_none_or(|filter| "shards".contains(filter)) {
        passed &= shards::run(&arguments.corelog, arguments.port + 600)?;
    }
    println!("{} after {:.1} s", if passed { "PASSED" } else { "FAILED" }, began.elapsed().as_secs_f32());
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The oracle and the subject.
fn brokers(arguments: &Arguments) -> Result<(Broker, Broker)> {
    let (port, other_port) = (arguments.port, arguments.port + 300);
    let more = if arguments.kafka4 { cases::SETTINGS4 } else { &[] };
    let oracle = |name, port| match arguments.kafka4 {
        true => Broker::kafka4(name, &arguments.kafka4_libs, port, more),
        false => Broker::kafka(name, &arguments.kafka_libs, port),
    };
    let subject = match arguments.itself {
        true => oracle("Kafka again", other_port)?,
        false => Broker::corelog(&arguments.corelog, other_port, 1, more)?,
    };
    Ok((oracle("Kafka", port)?, subject))
}

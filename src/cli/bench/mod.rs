//! `corelog bench`: load on a cluster, and what it shows.

mod report;

use super::choices::{AcksArg, CodecArg};
use super::connect::ConnectArgs;
use super::keyval::KeyValue;
use super::moment::parse_duration;
use super::output;
use crate::client::admin::{NewTopic, create_topic, delete_topic};
use crate::client::cluster::Cluster;
use crate::client::producer::Acks;
use crate::load::measure::Phase;
use crate::load::plan::{FetchPlan, From, Plan, Work};
use crate::load::{self, Progress};
use crate::record::compression::Compression;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use kafka_protocol::error::ResponseError;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Measure any Kafka-compatible cluster under load.
///
/// Batches are built before the clock starts, and each connection has a thread of its own: the generator costs a small part of what it
/// measures, and tells how much. With --rate latency counts from when a request was due (no coordinated omission); without it the
/// loop is closed, and latency counts from sending.
#[derive(Subcommand)]
#[command(after_help = "\
Examples:
  corelog bench produce --acks all --pid $(pidof corelog)      as many as go, and the broker's CPU
  corelog bench produce --rate 50000 --hgrm latency.hgrm       at a steady rate, latencies to a file
  corelog bench consume --topic clicks --once                  read a topic to its end
  corelog bench e2e --rate 5000 --batch 1 --json               producer to consumer")]
pub enum BenchCommand {
    /// Send batches: rate, and latency until they are acknowledged
    Produce(ProduceBench),
    /// Fetch a topic's partitions, one for each connection, over and over
    Consume(ConsumeBench),
    /// Send at a rate and read what was sent: latency from due to received
    E2e(EndToEndBench),
}

#[derive(Args)]
pub struct ProduceBench {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    produce: ProduceArgs,
    /// Records a second, of all connections together [default: as many as go]
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// How to compress batches
    #[arg(long, short = 'z', value_enum, default_value = "none", value_name = "CODEC")]
    compression: CodecArg,
    /// Give each record one of so many keys, by chance [default: no keys]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    keys: Option<u64>,
    /// Partitions of one broker that each request has a batch for
    #[arg(long, value_name = "N", default_value_t = 1)]
    partitions_per_request: u32,
}

#[derive(Args)]
pub struct ConsumeBench {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    fetch: FetchArgs,
    /// Records a second, of all connections together [default: as many as go]
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Where to begin
    #[arg(long, value_enum, default_value = "earliest")]
    from: FromArg,
    /// End when everything was read, instead of beginning again
    #[arg(long)]
    once: bool,
}

#[derive(Args)]
pub struct EndToEndBench {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    produce: ProduceArgs,
    #[command(flatten)]
    fetch: FetchArgs,
    /// Records a second, of all connections together
    #[arg(long, value_name = "N")]
    rate: f64,
}

#[derive(Args)]
struct CommonArgs {
    /// The topic; made if it does not exist, and removed afterwards unless --keep
    #[arg(long, value_name = "TOPIC", default_value = "corelog-bench")]
    topic: String,
    /// Partitions of a topic that is made [default: one for each connection]
    #[arg(long, value_name = "N")]
    partitions: Option<u32>,
    /// A setting of a topic that is made; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<KeyValue>,
    /// Leave the topic that was made
    #[arg(long)]
    keep: bool,
    /// Connections; each producer and each consumer has its own. Producers take turns over all partitions, a consumer reads one
    #[arg(long, short = 'c', value_name = "N", default_value_t = 4)]
    connections: u32,
    /// How long to measure
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// How long to run before that
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    warm_up: Duration,
    /// End earlier, when so many bytes have passed: keeps a fast broker within the page cache
    #[arg(long, value_name = "BYTES")]
    bytes: Option<u64>,
    /// A process of the broker, for its CPU time and memory; may be repeated
    #[arg(long = "pid", value_name = "PID")]
    pids: Vec<u32>,
    /// What to call this run in its report
    #[arg(long, value_name = "TEXT", default_value = "")]
    label: String,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Write latencies as an .hgrm file, for HdrHistogram's plotter
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Args)]
struct ProduceArgs {
    /// Requests in flight on each connection
    #[arg(long, short = 'd', value_name = "N", default_value_t = 4)]
    depth: u32,
    /// Bytes of each record's value
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(..=64 << 20))]
    size: u32,
    /// Records in each batch
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    batch: u32,
    /// Who must have a batch before it is acknowledged: 0 nobody, 1 the leader, all the in-sync replicas
    #[arg(long, value_enum, default_value = "all")]
    acks: AcksArg,
}

#[derive(Args)]
struct FetchArgs {
    /// Bytes that one fetch asks for at most
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1..=128 << 20))]
    fetch_bytes: u32,
    /// Bytes that the broker waits for
    #[arg(long, value_name = "BYTES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=128 << 20))]
    min_bytes: u32,
    /// How long it waits for them
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = parse_duration)]
    max_wait: Duration,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FromArg {
    Earliest,
    Latest,
}

pub fn run(command: BenchCommand) -> anyhow::Result<ExitCode> {
    let (common, plan) = command.plan();
    plan.check().map_err(anyhow::Error::msg)?;
    let mut cluster = common.connect.connect()?;
    let made = plan.work != Work::Consume && make_topic(&common, &mut cluster)?;
    let bar = progress_bar(&common);
    let outcome = load::run(&plan, &mut cluster, &common.pids, &mut |progress| show(&bar, progress));
    bar.finish_and_clear();
    let removed = match made && !common.keep {
        true => delete_topic(&mut cluster, &common.topic),
        false => Ok(()),
    };
    let outcome = outcome?;
    if let Some(path) = &common.hgrm {
        std::fs::write(path, report::hgrm(report::main_latencies(&outcome)))?;
    }
    match common.json {
        true => output::json(&report::json(&common.label, &plan, &outcome))?,
        false => report::print(&common.label, &plan, &outcome)?,
    }
    removed?;
    Ok(if outcome.totals.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl BenchCommand {
    fn plan(self) -> (CommonArgs, Plan) {
        match self {
            BenchCommand::Produce(args) => {
                let plan = Plan {
                    rate: args.rate,
                    keys: args.keys,
                    compression: Compression::of(args.compression.into()),
                    partitions_per_request: args.partitions_per_request,
                    ..plan(Work::Produce, &args.common, Some(&args.produce), None)
                };
                (args.common, plan)
            }
            BenchCommand::Consume(args) => {
                let mut plan = Plan { rate: args.rate, ..plan(Work::Consume, &args.common, None, Some(&args.fetch)) };
                plan.fetch.once = args.once;
                plan.fetch.from = match args.from {
                    FromArg::Earliest => From::Earliest,
                    FromArg::Latest => From::Latest,
                };
                (args.common, plan)
            }
            BenchCommand::E2e(args) => {
                let plan = plan(Work::EndToEnd, &args.common, Some(&args.produce), Some(&args.fetch));
                (args.common, Plan { rate: Some(args.rate), ..plan })
            }
        }
    }
}

fn plan(work: Work, common: &CommonArgs, produce: Option<&ProduceArgs>, fetch: Option<&FetchArgs>) -> Plan {
    Plan {
        work,
        topic: common.topic.clone(),
        connections: common.connections,
        depth: produce.map_or(1, |args| args.depth),
        rate: None,
        record_bytes: produce.map_or(0, |args| args.size),
        keys: None,
        batch_records: produce.map_or(1, |args| args.batch),
        partitions_per_request: 1,
        acks: produce.map_or(0, |args| Acks::from(args.acks).wire()),
        compression: Compression::NONE,
        warm_up: common.warm_up,
        measured: common.duration,
        bytes_max: common.bytes,
        fetch: FetchPlan {
            from: From::Earliest,
            max_bytes: fetch.map_or(0, |args| args.fetch_bytes),
            min_bytes: fetch.map_or(0, |args| args.min_bytes),
            max_wait: fetch.map_or(Duration::ZERO, |args| args.max_wait),
            once: false,
        },
    }
}

/// Makes the topic if it is not there; whether it was.
fn make_topic(common: &CommonArgs, cluster: &mut Cluster) -> anyhow::Result<bool> {
    let topic = NewTopic {
        name: common.topic.clone(),
        partitions: Some(i32::try_from(common.partitions.unwrap_or(common.connections))?),
        configs: common.settings.iter().cloned().map(Into::into).collect(),
        ..NewTopic::default()
    };
    match create_topic(cluster, &topic, false) {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some(ResponseError::TopicAlreadyExists) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn progress_bar(common: &CommonArgs) -> ProgressBar {
    if common.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new((common.warm_up + common.duration).as_secs());
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} s {msg}");
    bar.set_style(style.expect("invariant: a constant template"));
    bar.with_prefix(common.topic.clone())
}

fn show(bar: &ProgressBar, progress: &Progress) {
    bar.inc(1);
    let phase = if progress.phase == Phase::WarmUp { ", warming up" } else { "" };
    let (records, megabytes) = (progress.passed.records, progress.passed.bytes as f64 / 1e6);
    let errors =
        if progress.passed.errors > 0 { format!(", {} errors", progress.passed.errors) } else { String::new() };
    bar.set_message(format!("{records} records/s, {megabytes:.1} MB/s{errors}{phase}"));
}

//! `corelog bench`: load on a cluster, and what it shows.

mod html;
mod plot;
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
use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use kafka_protocol::error::ResponseError;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Measure any Kafka-compatible cluster under load.
///
/// Batches are built before the clock starts, and few threads drive all connections: the generator costs a small part of what it
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
    /// Fetch a topic's partitions, over and over or --once; --verify checks what comes
    Consume(ConsumeBench),
    /// Send at a rate and read what was sent: latency from due to received
    E2e(EndToEndBench),
    /// Lay runs over each other in one HTML file with plots
    Report(ReportArgs),
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
    /// Compute the CRC of every batch, and fail if one is damaged or offsets are missing
    #[arg(long)]
    verify: bool,
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
pub struct ReportArgs {
    /// What --json printed, one run a file
    #[arg(required = true, value_name = "FILE")]
    runs: Vec<PathBuf>,
    /// Where to write the report
    #[arg(long, short = 'o', value_name = "FILE")]
    out: PathBuf,
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
    /// Connections; each producer and each consumer has its own. Producers and consumers take turns over all partitions; at a topic's end a consumer reads one
    #[arg(long, short = 'c', value_name = "N", default_value_t = 4)]
    connections: u32,
    /// Threads that drive them [default: one for each two cores]
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
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
    /// Write a report with plots, as one HTML file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
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
    match command {
        BenchCommand::Produce(args) => measure(args.plan()),
        BenchCommand::Consume(args) => measure(args.plan()),
        BenchCommand::E2e(args) => measure(args.plan()),
        BenchCommand::Report(args) => write_report(&args),
    }
}

fn write_report(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let read = |path: &PathBuf| -> anyhow::Result<serde_json::Value> {
        let text = std::fs::read(path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| format!("{}: no JSON", path.display()))
    };
    let documents = args.runs.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    write(&args.out, &html::page(&documents)?)?;
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

fn measure((common, plan): (CommonArgs, Plan)) -> anyhow::Result<ExitCode> {
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
        write(path, &report::hgrm(report::main_latencies(&outcome)))?;
    }
    if let Some(path) = &common.html {
        write(path, &html::page(&[report::json(&common.label, &plan, &outcome)])?)?;
    }
    match common.json {
        true => output::json(&report::json(&common.label, &plan, &outcome))?,
        false => report::print(&common.label, &plan, &outcome)?,
    }
    removed?;
    let is_sound = outcome.checked.damaged == 0 && (!plan.fetch.verify || outcome.checked.missing == 0);
    Ok(if outcome.totals.errors == 0 && is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl ProduceBench {
    fn plan(self) -> (CommonArgs, Plan) {
        let plan = Plan {
            rate: self.rate,
            keys: self.keys,
            compression: Compression::of(self.compression.into()),
            partitions_per_request: self.partitions_per_request,
            ..plan(Work::Produce, &self.common, Some(&self.produce), None)
        };
        (self.common, plan)
    }
}

impl ConsumeBench {
    fn plan(self) -> (CommonArgs, Plan) {
        let mut plan = Plan { rate: self.rate, ..plan(Work::Consume, &self.common, None, Some(&self.fetch)) };
        plan.fetch.once = self.once;
        plan.fetch.verify = self.verify;
        plan.fetch.from = match self.from {
            FromArg::Earliest => From::Earliest,
            FromArg::Latest => From::Latest,
        };
        (self.common, plan)
    }
}

impl EndToEndBench {
    fn plan(self) -> (CommonArgs, Plan) {
        let plan = plan(Work::EndToEnd, &self.common, Some(&self.produce), Some(&self.fetch));
        (self.common, Plan { rate: Some(self.rate), ..plan })
    }
}

fn plan(work: Work, common: &CommonArgs, produce: Option<&ProduceArgs>, fetch: Option<&FetchArgs>) -> Plan {
    Plan {
        work,
        topic: common.topic.clone(),
        connections: common.connections,
        threads: common.threads.unwrap_or_else(default_threads),
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
            verify: false,
        },
    }
}

/// The broker may be on this machine, and one thread drives what a broker's core can take.
fn default_threads() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    u32::try_from(cores / 2).unwrap_or(1).max(1)
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
    bar.inc(progress.step.as_secs());
    let phase = if progress.phase == Phase::WarmUp { ", warming up" } else { "" };
    let seconds = progress.step.as_secs_f64();
    let (records, megabytes) = (progress.passed.records as f64 / seconds, progress.passed.bytes as f64 / 1e6 / seconds);
    let errors =
        if progress.passed.errors > 0 { format!(", {} errors", progress.passed.errors) } else { String::new() };
    bar.set_message(format!("{records:.0} records/s, {megabytes:.1} MB/s{errors}{phase}"));
}

//! What the commands of `corelog bench` are asked, and the plans that come of it.

use super::super::choices::{AcksArg, CodecArg};
use super::super::connect::ConnectArgs;
use super::super::keyval::KeyValue;
use super::super::moment::parse_duration;
use crate::client::producer::Acks;
use crate::load::plan::{FetchPlan, From as Begin, Plan, Values, Work};
use crate::load::skew::Skew;
use crate::record::compression::Compression;
use anyhow::Context;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Args)]
pub struct ProduceBench {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub produce: ProduceArgs,
    /// Records a second, of all connections together [default: as many as go]
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// How to compress batches
    #[arg(long, short = 'z', value_enum, default_value = "none", value_name = "CODEC")]
    compression: CodecArg,
    /// Give each record one of so many keys, by chance [default: no keys]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    keys: Option<u64>,
    /// Partitions of one broker that each request has a batch for
    #[arg(long, value_name = "N", default_value_t = 1)]
    partitions_per_request: u32,
    /// How requests are spread over a broker's partitions [default: each connection takes turns over its own]
    #[arg(long, value_enum, value_name = "SKEW")]
    skew: Option<SkewArg>,
    /// Send each line of a file as a record's value, over and over, of its first 32 MiB
    #[arg(long, value_name = "FILE", conflicts_with = "size")]
    replay: Option<PathBuf>,
    /// Make each connection an idempotent producer (needs --acks all)
    #[arg(long)]
    idempotent: bool,
}

#[derive(Args)]
pub struct ConsumeBench {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    fetch: FetchArgs,
    /// Records a second, of all connections together [default: as many as go]
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
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
    pub common: CommonArgs,
    #[command(flatten)]
    pub produce: ProduceArgs,
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
    pub runs: Vec<PathBuf>,
    /// Where to write the report
    #[arg(long, short = 'o', value_name = "FILE")]
    pub out: PathBuf,
}

#[derive(Args)]
pub struct CommonArgs {
    /// The topic; made if it does not exist, and removed afterwards unless --keep
    #[arg(long, value_name = "TOPIC", default_value = "corelog-bench")]
    pub topic: String,
    /// Partitions of a topic that is made [default: one for each connection]
    #[arg(long, value_name = "N")]
    pub partitions: Option<u32>,
    /// A setting of a topic that is made; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<KeyValue>,
    /// Leave the topic that was made
    #[arg(long)]
    pub keep: bool,
    /// Connections; each producer and each consumer has its own. Producers and consumers take turns over all partitions; at a topic's end a consumer reads one
    #[arg(long, short = 'c', value_name = "N", default_value_t = 4)]
    pub connections: u32,
    /// Threads that drive them [default: one for each two cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<u32>,
    /// How long to measure
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// How long to run before that
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    pub warm_up: Duration,
    /// End earlier, when so many bytes have passed: keeps a fast broker within the page cache
    #[arg(long, value_name = "BYTES")]
    pub bytes: Option<u64>,
    /// A process of the broker, for its CPU time and memory; may be repeated
    #[arg(long = "pid", value_name = "PID")]
    pub pids: Vec<u32>,
    /// What to call this run in its report
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub label: String,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Write latencies as an .hgrm file, for HdrHistogram's plotter
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// Write a report with plots, as one HTML file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

#[derive(Args)]
pub struct ProduceArgs {
    /// Requests in flight on each connection
    #[arg(long, short = 'd', value_name = "N", default_value_t = 4)]
    depth: u32,
    /// Bytes of each record's value: a number, a range of which all are as frequent (100-2000), or exp: and the mean of many short ones and few long ones (exp:500)
    #[arg(long, value_name = "BYTES", default_value = "1024", value_parser = parse_size)]
    size: Values,
    /// Records in each batch
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    batch: u32,
    /// Who must have a batch before it is acknowledged: 0 nobody, 1 the leader, all the in-sync replicas
    #[arg(long, value_enum, default_value = "all")]
    acks: AcksArg,
}

#[derive(Args)]
pub struct FetchArgs {
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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SkewArg {
    /// By chance, each as many
    Uniform,
    /// By chance, the n-th one n-th of what the first gets
    Zipf,
    /// By chance, nine of ten to the first
    Hot,
}

#[derive(Args)]
pub struct MixedBench {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    produce: ProduceArgs,
    #[command(flatten)]
    fetch: FetchArgs,
    /// Records a second of all producers together [default: as many as go]
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Consumers, each at the end of one partition [default: one for each producer]
    #[arg(long, value_name = "N")]
    consumers: Option<u32>,
    /// Producers of one record at a time, each waiting for its answer
    #[arg(long, value_name = "N", default_value_t = 1)]
    probes: u32,
}

#[derive(Args)]
pub struct ConnectionsBench {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub produce: ProduceArgs,
    /// Records a second, of all connections together [default: as many as go]
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// How many connections, in a run each
    #[arg(long, value_name = "N,N...", value_delimiter = ',', default_value = "1,10,100,1000,10000", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub counts: Vec<u32>,
    /// Let them do nothing, beside those of -c that work in every run
    #[arg(long)]
    pub idle: bool,
}

#[derive(Args)]
pub struct PartitionsBench {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub produce: ProduceArgs,
    /// Records a second, of all connections together [default: as many as go]
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// How many partitions, in a run and a topic each
    #[arg(long, value_name = "N,N...", value_delimiter = ',', default_value = "1,10,100,1000,10000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub counts: Vec<u32>,
    /// Partitions of one broker that each request has a batch for, as far as there are so many
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub partitions_per_request: u32,
}

/// Of a record's value: more is no record that brokers take.
const SIZE_MAX: u32 = 64 << 20;
/// Of a file that is replayed: what is held in memory.
const REPLAY_BYTES_MAX: u64 = 32 << 20;

impl From<SkewArg> for Skew {
    fn from(skew: SkewArg) -> Skew {
        match skew {
            SkewArg::Uniform => Skew::Uniform,
            SkewArg::Zipf => Skew::Zipf,
            SkewArg::Hot => Skew::Hot,
        }
    }
}

fn parse_size(text: &str) -> anyhow::Result<Values> {
    let bytes = |text: &str| -> anyhow::Result<u32> {
        let bytes = text.trim().parse().with_context(|| format!("'{text}' is no number of bytes"))?;
        anyhow::ensure!(bytes <= SIZE_MAX, "{bytes} bytes are too many: at most {SIZE_MAX}");
        Ok(bytes)
    };
    if let Some(mean) = text.strip_prefix("exp:") {
        return Ok(Values::Exponential { mean: bytes(mean)? });
    }
    match text.split_once('-') {
        Some((least, most)) => Ok(Values::Uniform { least: bytes(least)?, most: bytes(most)? }),
        None => Ok(Values::Fixed(bytes(text)?)),
    }
}

/// The lines of a file's beginning, without their ends.
fn lines(path: &Path) -> anyhow::Result<Values> {
    let context = || path.display().to_string();
    let mut text = Vec::new();
    File::open(path).with_context(context)?.take(REPLAY_BYTES_MAX).read_to_end(&mut text).with_context(context)?;
    if text.len() as u64 == REPLAY_BYTES_MAX {
        // The last line may be cut, but if it is the only one it is as long as this.
        let end = text.iter().rposition(|byte| *byte == b'\n').unwrap_or(text.len());
        text.truncate(end);
    }
    let text = Bytes::from(text);
    let lines = text.split(|byte| *byte == b'\n').map(|line| text.slice_ref(line.strip_suffix(b"\r").unwrap_or(line)));
    let mut lines: Vec<Bytes> = lines.collect();
    // What follows the last line's end is no line.
    lines.pop_if(|last| last.is_empty());
    anyhow::ensure!(!lines.is_empty(), "{}: no lines", path.display());
    Ok(Values::Lines(lines.into()))
}

impl ProduceBench {
    pub fn plan(self) -> anyhow::Result<(CommonArgs, Plan)> {
        let plain = plan(Work::Produce, &self.common, Some(&self.produce), None);
        let plan = Plan {
            values: self.replay.as_deref().map_or(Ok(plain.values.clone()), lines)?,
            skew: self.skew.map(Skew::from),
            idempotent: self.idempotent,
            rate: self.rate,
            keys: self.keys,
            compression: Compression::of(self.compression.into()),
            partitions_per_request: self.partitions_per_request,
            ..plain
        };
        Ok((self.common, plan))
    }
}

impl ConsumeBench {
    pub fn plan(self) -> anyhow::Result<(CommonArgs, Plan)> {
        let mut plan = Plan { rate: self.rate, ..plan(Work::Consume, &self.common, None, Some(&self.fetch)) };
        plan.fetch.once = self.once;
        plan.fetch.verify = self.verify;
        plan.fetch.from = match self.from {
            FromArg::Earliest => Begin::Earliest,
            FromArg::Latest => Begin::Latest,
        };
        Ok((self.common, plan))
    }
}

impl EndToEndBench {
    pub fn plan(self) -> anyhow::Result<(CommonArgs, Plan)> {
        let plan = plan(Work::EndToEnd, &self.common, Some(&self.produce), Some(&self.fetch));
        Ok((self.common, Plan { rate: Some(self.rate), ..plan }))
    }
}

impl MixedBench {
    pub fn plan(self) -> anyhow::Result<(CommonArgs, Plan)> {
        let plan = Plan {
            rate: self.rate,
            consumers: self.consumers.unwrap_or(self.common.connections),
            probes: self.probes,
            ..plan(Work::Mixed, &self.common, Some(&self.produce), Some(&self.fetch))
        };
        Ok((self.common, plan))
    }
}

pub fn plan(work: Work, common: &CommonArgs, produce: Option<&ProduceArgs>, fetch: Option<&FetchArgs>) -> Plan {
    Plan {
        work,
        topic: common.topic.clone(),
        connections: common.connections,
        consumers: 0,
        probes: 0,
        idle: 0,
        threads: common.threads.unwrap_or_else(default_threads),
        depth: produce.map_or(1, |args| args.depth),
        rate: None,
        values: produce.map_or(Values::Fixed(0), |args| args.size.clone()),
        keys: None,
        batch_records: produce.map_or(1, |args| args.batch),
        partitions_per_request: 1,
        skew: None,
        idempotent: false,
        acks: produce.map_or(0, |args| Acks::from(args.acks).wire()),
        compression: Compression::NONE,
        warm_up: common.warm_up,
        measured: common.duration,
        bytes_max: common.bytes,
        fetch: FetchPlan {
            from: Begin::Earliest,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let show = |text| format!("{:?}", parse_size(text).expect("a size"));
        assert_eq!(show("1024"), "Fixed(1024)");
        assert_eq!(show("100-2000"), "Uniform { least: 100, most: 2000 }");
        assert_eq!(show("exp:500"), "Exponential { mean: 500 }");
        for wrong in ["", "x", "-1", "1-", "exp:", "exp:x", "67108865", "1-67108865", "99999999999"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_file_is_replayed_line_by_line() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("lines");
        let read = |text: &[u8]| -> anyhow::Result<Vec<Bytes>> {
            std::fs::write(&path, text)?;
            let Values::Lines(lines) = lines(&path)? else { anyhow::bail!("no lines") };
            Ok(lines.to_vec())
        };
        assert_eq!(read(b"one\r\n\ntwo").expect("lines"), ["one", "", "two"]);
        assert_eq!(read(b"one\n").expect("lines"), ["one"]);
        assert!(read(b"").is_err() && lines(&dir.path().join("none")).is_err());
        let long = [&b"x".repeat(1 << 20)[..], b"\n"].concat().repeat(40);
        let lines = read(&long).expect("lines");
        assert!(lines.len() == 31 && lines.iter().all(|line| line.len() == 1 << 20), "whole lines of the first 32 MiB");
    }
}

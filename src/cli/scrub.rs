//! `corelog scrub`: how far the background reading for damage has come, and holding, continuing and beginning it.
//!
//! Status is read from the data directory, so that it tells of a node that is stopped, too. The rest are dynamic settings of
//! all brokers (KIP-226): they reach every node of the cluster, outlive restarts, and any admin client can set them.

use super::connect::ConnectArgs;
use super::{moment, output};
use crate::base::limits::CORRUPT_FILE_BYTES_MAX;
use crate::client::admin;
use crate::log::corrupt::{CORRUPT_RANGES, CorruptRanges};
use crate::log::paths::{self, DirName};
use crate::maintenance::scrub_progress::{Progress, shard_of};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  corelog scrub status                            of ./corelog-data
  corelog scrub status --data-dir /disk1/data --data-dir /disk2/data --json
  corelog scrub pause                             until `corelog scrub resume`
  corelog scrub now                               begin a round now
  corelog scrub rate 100000000                    bytes per second that each node reads for it")]
pub struct ScrubArgs {
    #[command(subcommand)]
    command: ScrubCommand,
}

#[derive(Subcommand)]
enum ScrubCommand {
    /// Show how far it has come, and what is known to be damaged
    Status(StatusArgs),
    /// Hold it where it is, on all nodes
    Pause(ConnectArgs),
    /// Go on
    Resume(ConnectArgs),
    /// Begin a round now, on all nodes
    Now(ConnectArgs),
    /// Limit what each node reads
    Rate(RateArgs),
}

#[derive(Args)]
struct StatusArgs {
    /// A data directory; may be given several times [default: ./corelog-data]
    #[arg(long = "data-dir", value_name = "DIR", default_value = "corelog-data")]
    data_dirs: Vec<PathBuf>,
    /// Print a JSON object a line
    #[arg(long, short = 'J')]
    json: bool,
}

#[derive(Args)]
struct RateArgs {
    #[arg(value_name = "BYTES/S", value_parser = clap::value_parser!(u64).range(1 << 16..=i64::MAX as u64))]
    bytes_per_second: u64,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub fn run(args: ScrubArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        ScrubCommand::Status(args) => return status(&args),
        ScrubCommand::Pause(connect) => set(&connect, "log.scrub.enable", "false", "scrubbing is paused")?,
        ScrubCommand::Resume(connect) => set(&connect, "log.scrub.enable", "true", "scrubbing goes on")?,
        ScrubCommand::Now(connect) => {
            let now = moment::now_ms().to_string();
            set(&connect, "log.scrub.begin.ms", &now, "a round begins")?;
        }
        ScrubCommand::Rate(args) => {
            let rate = args.bytes_per_second.to_string();
            set(&args.connect, "log.scrub.max.bytes.per.second", &rate, &format!("at most {rate} bytes/s"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn set(connect: &ConnectArgs, name: &str, value: &str, done: &str) -> anyhow::Result<()> {
    let mut cluster = connect.connect()?;
    admin::alter_broker_defaults(&mut cluster, name, value)?;
    output::line(done)?;
    Ok(())
}

fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    for dir in &args.data_dirs {
        let (mut rounds, mut damaged) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_dir = entry.file_type()?.is_dir();
            match (shard_of(&name), paths::parse_dir(&name)) {
                (Some(shard), _) if !is_dir => rounds.push((shard, read_progress(&entry.path())?)),
                (_, DirName::Partition { .. }) if is_dir => {
                    damaged.extend(read_ranges(&entry.path())?.map(|ranges| (name, ranges)));
                }
                _ => {}
            }
        }
        rounds.sort_by_key(|(shard, _)| *shard);
        damaged.sort_by(|one, other| one.0.cmp(&other.0));
        if args.json {
            output::line(as_json(dir, &rounds, &damaged))?;
        } else {
            tell(dir, &rounds, &damaged)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(dir: &Path, rounds: &[(u16, Progress)], damaged: &[(String, CorruptRanges)]) -> io::Result<()> {
    let when = |ms| moment::show_moment(ms).unwrap_or_else(|| ms.to_string());
    output::line(dir.display())?;
    if rounds.is_empty() {
        output::line("  nothing was scrubbed yet")?;
    }
    for (shard, round) in rounds {
        let Progress { segments, bytes, damaged, gaps, .. } = round;
        let read =
            format!("{segments} segments, {bytes} bytes, {damaged} segments damaged, {gaps} with missing offsets");
        let state = if round.is_under_way() {
            let percent = (bytes * 100).checked_div(round.total).unwrap_or(100).min(100);
            format!("{percent} % of a round that began {}: {read}", when(round.begun_ms))
        } else {
            format!("the last round began {} and ended {}: {read}", when(round.begun_ms), when(round.ended_ms))
        };
        output::line(format_args!("  shard {shard}: {state}"))?;
    }
    for (partition, ranges) in damaged {
        for range in ranges.iter() {
            let (start, next) = (range.start, range.next);
            output::line(format_args!(
                "  {partition}: offsets {} up to {next} are damaged, from byte {} of segment {}",
                range.first, start.position, start.segment
            ))?;
        }
    }
    Ok(())
}

fn as_json(dir: &Path, rounds: &[(u16, Progress)], damaged: &[(String, CorruptRanges)]) -> Value {
    let round = |(shard, round): &(u16, Progress)| {
        json!({
            "shard": shard, "under_way": round.is_under_way(), "begun_ms": round.begun_ms, "ended_ms": round.ended_ms,
            "last_whole_ms": round.whole_ms, "segments": round.segments, "bytes": round.bytes, "bytes_total": round.total,
            "segments_damaged": round.damaged, "segments_with_gaps": round.gaps,
        })
    };
    let ranges = damaged.iter().flat_map(|(partition, ranges)| {
        ranges.iter().map(move |range| {
            json!({
                "partition": partition, "first_offset": range.first.0, "next_offset": range.next.0,
                "segment": range.start.segment.0, "position": range.start.position,
            })
        })
    });
    json!({
        "data_dir": dir.display().to_string(),
        "rounds": rounds.iter().map(round).collect::<Vec<_>>(),
        "damaged": ranges.collect::<Vec<_>>(),
    })
}

fn read_progress(path: &Path) -> anyhow::Result<Progress> {
    let text = read_text(path)?.unwrap_or_default();
    Progress::decode(&text).with_context(|| path.display().to_string())
}

fn read_ranges(partition: &Path) -> anyhow::Result<Option<CorruptRanges>> {
    let path = partition.join(CORRUPT_RANGES);
    let Some(text) = read_text(&path)? else { return Ok(None) };
    Ok(Some(CorruptRanges::decode(&text).with_context(|| path.display().to_string())?))
}

/// None: there is no such file, or not any more.
fn read_text(path: &Path) -> anyhow::Result<Option<String>> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(CORRUPT_FILE_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| path.display().to_string()),
    }
}

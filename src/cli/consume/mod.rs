//! `corelog consume`: a topic's records, by partition and offset or time, or as a member of a group.

pub mod format;
mod group;

use super::connect::ConnectArgs;
use super::moment::parse_moment_now;
use super::{output, stop};
use crate::client::cluster::Cluster;
use crate::client::consumer::{self, Assignment, ConsumerOptions, Reset, Sink};
use crate::client::error::ClientError;
use crate::client::groups::{self, Progress};
use crate::client::metadata::Topics;
use crate::client::offsets::{Isolation, Lookup, list_offsets};
use crate::record::records::Record;
use anyhow::bail;
use clap::error::ErrorKind;
use clap::{Args, ValueEnum};
use format::Format;
use kafka_protocol::error::ResponseError;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  corelog consume clicks                             everything, then what comes
  corelog consume clicks -o latest                   only what comes
  corelog consume clicks -o -10 -e                   the last 10 of each partition
  corelog consume clicks -p 0,3 -o 1000 -c 5         5 records from offset 1000 on
  corelog consume clicks --timestamp 2h -e           the last two hours
  corelog consume clicks -e -f '%p %o %k=%v\\n'
  corelog consume clicks -e --json | jq .value
  corelog consume clicks --group reports             a share of it, from where the group is; Ctrl-C leaves

While a broker is away it is tried again for --timeout, and a note on standard error says so; then the command fails.
";

#[derive(Args)]
#[command(after_help = format!("{EXAMPLES}\n{}", format::TOKENS))]
pub struct ConsumeArgs {
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// Partitions to read, separated by commas [default: all]
    #[arg(long = "partition", short = 'p', value_name = "N,…", value_delimiter = ',', allow_negative_numbers = true, value_parser = parse_partition)]
    partitions: Vec<i32>,
    /// Where to begin: earliest, latest, an offset, or -N for the last N of each partition
    #[arg(long, short = 'o', value_name = "OFFSET", default_value = "earliest", allow_hyphen_values = true, value_parser = parse_start)]
    offset: Start,
    /// Begin with the first record at or after this time: ms since 1970, a date, or 2h (ago)
    #[arg(long, short = 't', value_name = "TIME", conflicts_with = "offset", allow_negative_numbers = true, value_parser = parse_moment_now)]
    timestamp: Option<i64>,
    /// Stop after this many records
    #[arg(long, short = 'c', visible_alias = "max-records", value_name = "N", allow_negative_numbers = true)]
    count: Option<u64>,
    /// Stop where the log ended when the command began
    #[arg(long, short = 'e')]
    exit_at_end: bool,
    /// How to print a record; see the tokens below [default: %v\n]
    #[arg(long, short = 'f', value_name = "FORMAT", conflicts_with = "json", value_parser = Format::parse)]
    format: Option<Format>,
    /// Print a JSON object per record
    #[arg(long, short = 'J')]
    json: bool,
    /// Which records are seen: also those of open or aborted transactions, or only committed ones
    #[arg(long, value_enum, default_value = "read-uncommitted", value_name = "LEVEL")]
    isolation: IsolationArg,
    /// What to do when the offset is not in the log
    #[arg(long, value_enum, default_value = "error", value_name = "POLICY")]
    reset: ResetArg,
    /// Bytes to fetch at a time from each broker
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20, value_parser = clap::value_parser!(i32).range(1..=100 << 20))]
    fetch_bytes: i32,
    #[command(flatten)]
    group: group::GroupArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Earliest,
    Latest,
    At(i64),
    /// So many records before the end.
    BeforeEnd(i64),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum IsolationArg {
    ReadUncommitted,
    ReadCommitted,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ResetArg {
    Earliest,
    Latest,
    Error,
}

pub fn run(args: ConsumeArgs) -> anyhow::Result<ExitCode> {
    let options = args.options();
    let begin = args.group.group.as_ref().map(|_| args.begin()).transpose()?;
    let mut cluster = args.connect.connect()?;
    let format = match (&args.format, args.json) {
        (_, true) => Format::Json,
        (Some(format), _) => format.clone(),
        (None, false) => Format::Tokens(vec![format::Token::Value, format::Token::Text(b"\n".to_vec())]),
    };
    let mut sink = Printer {
        topic: args.topic.clone(),
        format,
        left: args.count,
        line_by_line: io::stdout().is_terminal(),
        out: BufWriter::with_capacity(64 << 10, io::stdout()),
    };
    match (&args.group.group, begin) {
        (Some(group), Some(begin)) => {
            // A topic that is not there would be waited for, as it may come.
            partitions(&mut cluster, &args)?;
            let member = args.group.member(&args.topic, group);
            let progress = Progress { begin, commit_every: args.group.commit_interval, exit_at_end: args.exit_at_end };
            let stop = stop::on_signal()?;
            let stop = || stop.load(Ordering::Relaxed);
            if args.count != Some(0) {
                groups::consume_as_member(&mut cluster, &member, &options, &progress, &mut sink, &stop)?;
            }
        }
        _ => {
            let assignments = assign(&mut cluster, &args, args.timestamp)?;
            if args.count != Some(0) {
                consumer::consume(&mut cluster, &args.topic, &assignments, &options, &mut sink)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl ConsumeArgs {
    fn options(&self) -> ConsumerOptions {
        ConsumerOptions {
            isolation: match self.isolation {
                IsolationArg::ReadUncommitted => Isolation::ReadUncommitted,
                IsolationArg::ReadCommitted => Isolation::ReadCommitted,
            },
            reset: match self.reset {
                ResetArg::Earliest => Reset::Earliest,
                ResetArg::Latest => Reset::Latest,
                ResetArg::Error => Reset::Fail,
            },
            fetch_bytes: self.fetch_bytes,
            partition_fetch_bytes: self.fetch_bytes.min(4 << 20),
            max_wait: Duration::from_millis(500),
        }
    }

    /// Where a group begins that has committed nothing.
    fn begin(&self) -> Result<Reset, clap::Error> {
        match self.offset {
            Start::Earliest => Ok(Reset::Earliest),
            Start::Latest => Ok(Reset::Latest),
            Start::At(_) | Start::BeforeEnd(_) => {
                let reason = "a group goes on where it is: with --group, --offset is earliest or latest; \
                              `corelog group reset-offsets` has it go on elsewhere\n";
                Err(clap::Error::raw(ErrorKind::ArgumentConflict, reason))
            }
        }
    }
}

/// Where each partition begins and, with --exit-at-end, ends.
fn assign(cluster: &mut Cluster, args: &ConsumeArgs, since: Option<i64>) -> anyhow::Result<Vec<Assignment>> {
    let partitions = partitions(cluster, args)?;
    let isolation = args.options().isolation;
    let mut find = |lookup| list_offsets(cluster, &args.topic, &partitions, lookup, isolation);
    let at = |offsets: &BTreeMap<i32, Option<i64>>, p: i32| offsets.get(&p).copied().flatten();
    let ends = match args.exit_at_end || since.is_some() || matches!(args.offset, Start::Latest | Start::BeforeEnd(_)) {
        true => find(Lookup::Latest)?,
        false => BTreeMap::new(),
    };
    let begins = match (since, args.offset) {
        // No record that young: begin at the end.
        (Some(ms), _) => {
            let found = find(Lookup::Timestamp(ms))?;
            partitions.iter().map(|p| (*p, at(&found, *p).or(at(&ends, *p)))).collect()
        }
        (None, Start::Earliest) => find(Lookup::Earliest)?,
        (None, Start::Latest) => ends.clone(),
        (None, Start::At(offset)) => partitions.iter().map(|p| (*p, Some(offset))).collect(),
        (None, Start::BeforeEnd(n)) => {
            let earliest = find(Lookup::Earliest)?;
            let begin = |p: i32| Some((at(&ends, p)? - n).max(at(&earliest, p)?));
            partitions.iter().map(|p| (*p, begin(*p))).collect()
        }
    };
    let assignment = |p: &i32| Assignment {
        partition: *p,
        from_offset: at(&begins, *p).unwrap_or(0),
        to_offset: if args.exit_at_end { Some(at(&ends, *p).unwrap_or(0)) } else { None },
    };
    let assignments: Vec<Assignment> = partitions.iter().map(assignment).collect();
    check_range(args, &assignments)?;
    Ok(assignments)
}

/// With an end, an offset beyond it would read nothing and succeed, which hides a mistake.
fn check_range(args: &ConsumeArgs, assignments: &[Assignment]) -> anyhow::Result<()> {
    if !matches!((args.offset, args.reset), (Start::At(_), ResetArg::Error)) || args.timestamp.is_some() {
        return Ok(());
    }
    match assignments.iter().find(|a| a.to_offset.is_some_and(|to| a.from_offset > to)) {
        Some(Assignment { partition, from_offset, to_offset: Some(end) }) => bail!(
            "{}-{partition}: offset {from_offset} lies beyond the end, which is {end}; \
             choose --partition, or --reset earliest|latest",
            args.topic
        ),
        _ => Ok(()),
    }
}

fn partitions(cluster: &mut Cluster, args: &ConsumeArgs) -> anyhow::Result<Vec<i32>> {
    let metadata = cluster.metadata(&Topics::Named(vec![args.topic.clone()]), false)?;
    let code = metadata.topics.get(&args.topic).map_or(Some(ResponseError::UnknownTopicOrPartition), |t| t.error);
    if let Some(error) = code.and_then(|c| ClientError::from_code(format!("topic {}", args.topic), c.code(), None)) {
        return Err(error.into());
    }
    let existing: Vec<i32> =
        metadata.topics.get(&args.topic).map_or_else(Vec::new, |t| t.partitions.iter().map(|p| p.index).collect());
    if args.partitions.is_empty() {
        return Ok(existing);
    }
    let mut wanted = args.partitions.clone();
    wanted.sort_unstable();
    wanted.dedup();
    match wanted.iter().find(|p| !existing.contains(p)) {
        Some(missing) => {
            bail!("{} has no partition {missing}, only 0 to {}", args.topic, existing.len().saturating_sub(1))
        }
        None => Ok(wanted),
    }
}

/// In words for people: the standard library speaks of digits.
fn parse_partition(text: &str) -> Result<i32, String> {
    text.parse().ok().filter(|p| *p >= 0).ok_or_else(|| "give partitions as numbers from 0 on, such as 0,3".to_owned())
}

fn parse_start(text: &str) -> Result<Start, String> {
    match text {
        "earliest" | "beginning" => Ok(Start::Earliest),
        "latest" | "end" => Ok(Start::Latest),
        number => match number.parse::<i64>() {
            Ok(n) if n < 0 => n.checked_neg().map(Start::BeforeEnd).ok_or_else(|| "too large".to_owned()),
            Ok(n) => Ok(Start::At(n)),
            Err(_) => Err("give earliest, latest, an offset, or -N".to_owned()),
        },
    }
}

struct Printer {
    topic: String,
    format: Format,
    left: Option<u64>,
    line_by_line: bool,
    out: BufWriter<Stdout>,
}

impl Sink for Printer {
    fn record(&mut self, partition: i32, record: &Record<'_>) -> io::Result<bool> {
        self.format.write(&mut self.out, &self.topic, partition, record)?;
        if self.line_by_line {
            self.out.flush()?;
        }
        self.left = self.left.map(|left| left.saturating_sub(1));
        Ok(self.left != Some(0))
    }

    fn idle(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn notice(&mut self, text: &str) {
        output::tell(format_args!("note: {text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_kcats() {
        assert_eq!(parse_start("beginning"), Ok(Start::Earliest));
        assert_eq!(parse_start("end"), Ok(Start::Latest));
        assert_eq!(parse_start("17"), Ok(Start::At(17)));
        assert_eq!(parse_start("-3"), Ok(Start::BeforeEnd(3)));
        assert_eq!(
            (parse_partition("3"), parse_partition("-1").is_err(), parse_partition("x").is_err()),
            (Ok(3), true, true)
        );
        assert!(parse_start("soon").is_err());
        assert!(parse_start("-9223372036854775808").is_err());
    }
}

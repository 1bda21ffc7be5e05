//! `corelog produce`: lines of standard input to a topic.

mod input;
mod progress;

use super::choices::{AcksArg, CodecArg};
use super::connect::ConnectArgs;
use super::keyval::KeyValue;
use super::moment::{parse_duration, parse_moment_now};
use super::output;
use crate::base::show::show_bytes;
use crate::client::producer::{self, Acks, ProducerOptions, Summary};
use crate::record::compression::Compression;
use anyhow::bail;
use clap::Args;
use input::{LineRules, Stamp, TimeUnit};
use progress::Progress;
use serde_json::json;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(Args)]
#[command(after_help = "\
Examples:
  echo hello | corelog produce greetings
  corelog produce clicks -K : < lines.txt                    'alice:page1' has the key alice
  corelog produce clicks --key-field user --timestamp-field ts -z zstd < activity.jsonl
  tail -F app.log | corelog produce logs --header host=web-1
  corelog produce clicks -K : -Z < tombstones.txt            an empty value deletes the key (null)

Keys decide the partition as Java's producer does (murmur2); records without a key fill one partition's batch after
another's. Exit code 0 means: every line is stored as --acks asks. Otherwise standard error tells which lines are not.")]
pub struct ProduceArgs {
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// What stands between key and value in a line, e.g. ':' or '\t'; a line without it has no key
    #[arg(long, short = 'K', value_name = "SEPARATOR", value_parser = input::parse_separator, conflicts_with_all = ["key", "key_field"])]
    key_separator: Option<input::Separator>,
    /// The same key for every record
    #[arg(long, short = 'k', value_name = "KEY", conflicts_with = "key_field")]
    key: Option<String>,
    /// Lines are JSON objects, and this field (a.b for nested ones) is the key
    #[arg(long, value_name = "FIELD")]
    key_field: Option<String>,
    /// Send to this partition, whatever the key
    #[arg(long, short = 'p', value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// A header of every record; may be repeated
    #[arg(long = "header", short = 'H', value_name = "KEY=VALUE")]
    headers: Vec<KeyValue>,
    /// Send empty values (and keys) as null
    #[arg(long, short = 'Z')]
    null_empty: bool,
    /// Every record's timestamp: ms since 1970, a date such as 2024-05-01T12:00:00Z, or 2h (ago) [default: now]
    #[arg(long, value_name = "TIME", conflicts_with = "timestamp_field", allow_negative_numbers = true, value_parser = parse_moment_now)]
    timestamp: Option<i64>,
    /// Lines are JSON objects, and this field holds the timestamp: a number (see --timestamp-unit) or an RFC 3339 date
    #[arg(long, value_name = "FIELD")]
    timestamp_field: Option<String>,
    /// What numbers in --timestamp-field count, from 1970 on
    #[arg(long, value_enum, default_value = "ms", value_name = "UNIT")]
    timestamp_unit: TimeUnit,
    /// Who must have a record before it counts: 0 nobody, 1 the leader, all the in-sync replicas
    #[arg(long, value_enum, default_value = "all")]
    acks: AcksArg,
    /// How to compress batches
    #[arg(long, short = 'z', value_enum, default_value = "none", value_name = "CODEC")]
    compression: CodecArg,
    /// Bytes of a batch before compression
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 10, value_parser = clap::value_parser!(u32).range(1024..=64 << 20))]
    batch_size: u32,
    /// How long a record may wait for others to fill its batch
    #[arg(long, value_name = "DURATION", default_value = "5ms", allow_negative_numbers = true, value_parser = parse_duration)]
    linger: Duration,
    /// Bytes of records under way before reading pauses
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20, value_parser = clap::value_parser!(u32).range(1 << 20..))]
    buffer: u32,
    /// Give up when a record cannot be delivered in this time
    #[arg(long, value_name = "DURATION", default_value = "2m", allow_negative_numbers = true, value_parser = parse_duration)]
    delivery_timeout: Duration,
    /// Do without producer ids: a retry may then store a record twice
    #[arg(long)]
    no_idempotence: bool,
    /// Fail if the topic does not exist, rather than let the broker create it
    #[arg(long)]
    no_create: bool,
    /// Print a summary as JSON on standard output
    #[arg(long)]
    json: bool,
    /// No progress, no summary; errors only
    #[arg(long, short = 'q')]
    quiet: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub fn run(args: ProduceArgs) -> anyhow::Result<ExitCode> {
    let rules = args.line_rules();
    let options = args.options();
    let mut cluster = args.connect.connect()?;
    let started = Instant::now();
    let counter = input::Counter::default();
    let mut progress = Progress::new(&args.topic, counter.clone(), args.quiet || args.json);
    let summary = producer::produce(
        &mut cluster,
        &args.topic,
        &options,
        move |feeder| input::feed(std::io::stdin(), &rules, &counter, feeder),
        &mut |summary| progress.show(summary),
        &mut |notice| output::tell(format_args!("note: {notice}")),
    );
    progress.finish();
    let summary = summary?;
    report(&args, &summary, started.elapsed())?;
    Ok(if summary.complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl ProduceArgs {
    fn line_rules(&self) -> LineRules {
        let stamp = match (&self.timestamp, &self.timestamp_field) {
            (Some(time), _) => Stamp::Fixed(*time),
            (None, Some(field)) => Stamp::Field(field.clone(), self.timestamp_unit),
            (None, None) => Stamp::Now,
        };
        let key = match (&self.key_separator, &self.key, &self.key_field) {
            (Some(separator), _, _) => input::Key::Before(separator.clone()),
            (_, Some(key), _) => input::Key::Fixed(key.clone().into()),
            (_, _, Some(field)) => input::Key::Field(field.clone()),
            _ => input::Key::None,
        };
        let header = |kv: &KeyValue| (kv.key.clone(), Some(kv.value.clone().into()));
        LineRules {
            key,
            stamp,
            headers: self.headers.iter().map(header).collect(),
            partition: self.partition,
            null_empty: self.null_empty,
        }
    }

    fn options(&self) -> ProducerOptions {
        let acks = self.acks.into();
        ProducerOptions {
            acks,
            compression: Compression::of(self.compression.into()),
            batch_bytes: self.batch_size as usize,
            linger: self.linger,
            buffer_bytes: self.buffer as usize,
            delivery_timeout: self.delivery_timeout,
            idempotent: !self.no_idempotence && acks == Acks::All,
            create_topic: !self.no_create,
        }
    }
}

fn report(args: &ProduceArgs, summary: &Summary, elapsed: Duration) -> anyhow::Result<()> {
    for failure in &summary.failures {
        let lines = show_lines(&failure.lines);
        match failure.partition {
            p if p >= 0 => output::tell(format_args!("lost: {lines} for partition {p}: {}", failure.reason)),
            _ => output::tell(format_args!("lost: {lines}: {}", failure.reason)),
        }
    }
    let mut hints: Vec<&str> = summary.failures.iter().filter_map(|f| f.hint).collect();
    hints.dedup();
    hints.iter().for_each(|hint| output::tell(format_args!("  what to do: {hint}")));
    let listed: u64 = summary.failures.iter().map(|f| f.lines.len() as u64).sum();
    if summary.lost_records > listed {
        output::tell(format_args!("lost: {} more records", summary.lost_records - listed));
    }
    if let Some(reason) = &summary.stopped {
        output::tell(format_args!("error: gave up: {reason}"));
    }
    if summary.unconfirmed_records > 0 {
        output::tell(format_args!(
            "error: {} records were read but not confirmed; they may or may not be stored",
            summary.unconfirmed_records
        ));
    }
    if let Some(reason) = &summary.input_error {
        output::tell(format_args!("error: {reason}; the rest of the input was not read"));
    }
    if args.json {
        output::json(&as_json(&args.topic, summary, elapsed))?;
    } else if !args.quiet {
        output::tell(format_args!(
            "{} of {} records ({}) stored in {} in {}{}",
            summary.delivered_records,
            summary.read_records,
            show_bytes(summary.delivered_bytes),
            args.topic,
            show_rate(summary.delivered_records, elapsed),
            if summary.retries > 0 { format!(", {} retries", summary.retries) } else { String::new() },
        ));
    }
    if summary.stopped.is_some() && summary.read_records == 0 {
        bail!("nothing was sent");
    }
    Ok(())
}

fn as_json(topic: &str, summary: &Summary, elapsed: Duration) -> serde_json::Value {
    let partition = |(index, tally): (&i32, &producer::PartitionTally)| {
        json!({
            "partition": index,
            "records": tally.records,
            "first_offset": tally.first_offset,
            "next_offset": tally.next_offset,
        })
    };
    let failure = |f: &producer::Failure| json!({ "partition": (f.partition >= 0).then_some(f.partition), "lines": f.lines, "reason": f.reason });
    json!({
        "topic": topic,
        "complete": summary.complete(),
        "read_records": summary.read_records,
        "delivered_records": summary.delivered_records,
        "delivered_bytes": summary.delivered_bytes,
        "lost_records": summary.lost_records,
        "unconfirmed_records": summary.unconfirmed_records,
        "retries": summary.retries,
        "idempotent": summary.idempotent,
        "elapsed_ms": elapsed.as_millis() as u64,
        "stopped": summary.stopped,
        "input_error": summary.input_error,
        "partitions": summary.partitions.iter().map(partition).collect::<Vec<_>>(),
        "failures": summary.failures.iter().map(failure).collect::<Vec<_>>(),
    })
}

/// `2.0 s: 500 records/s`; no rate where the time tells about the start rather than the work.
fn show_rate(records: u64, elapsed: Duration) -> String {
    const TOO_SHORT: Duration = Duration::from_millis(100);
    let seconds = elapsed.as_secs_f64();
    match elapsed < TOO_SHORT {
        true => format!("{} ms", elapsed.as_millis()),
        false => format!("{seconds:.1} s: {:.0} records/s", records as f64 / seconds),
    }
}

/// `line 5`, or `lines 5, 9, 12 and 34 more`.
fn show_lines(lines: &[u64]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<String> = lines.iter().take(SHOWN).map(u64::to_string).collect();
    let more = match lines.len() {
        n if n > SHOWN => format!(" and {} more", n - SHOWN),
        _ => String::new(),
    };
    format!("line{} {}{more}", if lines.len() == 1 { "" } else { "s" }, shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_some_time() {
        assert_eq!(show_rate(2, Duration::from_millis(5)), "5 ms");
        assert_eq!(show_rate(1000, Duration::from_secs(2)), "2.0 s: 500 records/s");
    }

    #[test]
    fn lost_lines_are_named() {
        assert_eq!(show_lines(&[5]), "line 5");
        assert_eq!(show_lines(&(1..=12).collect::<Vec<_>>()), "lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more");
    }
}

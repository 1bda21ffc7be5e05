//! Runs that differ in one number: how cost grows with connections, and with partitions.

use super::super::output::{self, Table};
use super::args::{CommonArgs, ConnectionsBench, PartitionsBench, ProduceArgs, plan};
use super::{html, once, report, write};
use crate::load::measure::Outcome;
use crate::load::plan::{Plan, Work};
use serde_json::{Value, json};
use std::process::ExitCode;

/// What a sweep is over, and its runs in order.
struct Sweep {
    over: &'static str,
    runs: Vec<(u32, Outcome, Value)>,
}

pub fn connections(args: ConnectionsBench) -> anyhow::Result<ExitCode> {
    let ConnectionsBench { mut common, produce, rate, counts, idle } = args;
    // All runs have a topic of as many partitions, or more would differ than connections.
    common.partitions.get_or_insert(common.connections);
    let plans = ascending(counts).into_iter().map(|count| {
        // Some brokers remove topics long after they said so: a name is not used again.
        let plain = Plan { topic: format!("{}-{count}", common.topic), ..plain(&common, &produce, rate) };
        let plan = match idle {
            true => Plan { idle: count, ..plain },
            false => Plan { connections: count, ..plain },
        };
        (count, plan)
    });
    let over = if idle { "idle connections" } else { "connections" };
    let plans = plans.collect();
    run(common, over, plans, |_, _| ())
}

pub fn partitions(args: PartitionsBench) -> anyhow::Result<ExitCode> {
    let PartitionsBench { common, produce, rate, counts, partitions_per_request } = args;
    let plans = ascending(counts).into_iter().map(|count| {
        let topic = format!("{}-{count}", common.topic);
        let partitions_per_request = partitions_per_request.min(count);
        (count, Plan { topic, partitions_per_request, ..plain(&common, &produce, rate) })
    });
    let plans = plans.collect();
    run(common, "partitions", plans, |common, count| common.partitions = Some(count))
}

/// Memory that a broker has taken for one run stays with it: the smallest comes first.
fn ascending(mut counts: Vec<u32>) -> Vec<u32> {
    counts.sort_unstable();
    counts.dedup();
    counts
}

fn plain(common: &CommonArgs, produce: &ProduceArgs, rate: Option<f64>) -> Plan {
    Plan { rate, ..plan(Work::Produce, common, Some(produce), None) }
}

/// `prepare` alters what topics are made with, for each run.
fn run(
    mut common: CommonArgs,
    over: &'static str,
    plans: Vec<(u32, Plan)>,
    prepare: impl Fn(&mut CommonArgs, u32),
) -> anyhow::Result<ExitCode> {
    let mut cluster = common.connect.connect()?;
    let mut sweep = Sweep { over, runs: Vec::new() };
    for (count, plan) in plans {
        prepare(&mut common, count);
        let (outcome, removed) = once(&common, &plan, &format!("{count} {over}"), &mut cluster)?;
        removed?;
        let document = report::json(&common.label, &plan, &outcome);
        sweep.runs.push((count, outcome, document));
    }
    let document = sweep.json(&common.label);
    if let Some(path) = &common.html {
        write(path, &html::page(std::slice::from_ref(&document))?)?;
    }
    match common.json {
        true => output::json(&document)?,
        false => sweep.print(&common.label)?,
    }
    let failed = sweep.runs.iter().any(|(_, outcome, _)| outcome.totals.errors > 0);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Sweep {
    /// Bytes that the broker's memory has grown by for each one more than in the first run.
    fn growth(&self, at: usize) -> Option<f64> {
        let resident = |at: usize| Some(self.runs.get(at)?.1.broker?.resident_bytes as f64);
        growth((self.runs.first()?.0, resident(0)?), (self.runs.get(at)?.0, resident(at)?))
    }

    fn json(&self, label: &str) -> Value {
        let mut errors = serde_json::Map::new();
        for (_, _, document) in &self.runs {
            for (name, times) in document["errors"].as_object().into_iter().flatten() {
                let sum = errors.get(name).and_then(Value::as_u64).unwrap_or(0) + times.as_u64().unwrap_or(0);
                errors.insert(name.clone(), json!(sum));
            }
        }
        let run = |(at, (count, _, document)): (usize, &(u32, Outcome, Value))| json!({ "count": count, "resident_bytes_each": self.growth(at), "result": document });
        let runs: Vec<Value> = self.runs.iter().enumerate().map(run).collect();
        json!({ "label": label, "work": "sweep", "over": self.over, "runs": runs, "errors": errors })
    }

    fn print(&self, label: &str) -> anyhow::Result<()> {
        if !label.is_empty() {
            output::line(label)?;
        }
        let mut table = Table::new(&[
            self.over,
            "records/s",
            "requests/s",
            "p50 us",
            "p99 us",
            "us CPU a request",
            "CPU-s/GB",
            "resident MiB",
            "KiB more each",
            "generator cores",
        ]);
        for (at, (count, outcome, document)) in self.runs.iter().enumerate() {
            let (seconds, totals) = (outcome.elapsed.as_secs_f64(), outcome.totals);
            let show =
                |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
            let cpu = outcome.broker.map(|broker| broker.cpu.as_secs_f64());
            let latency = |percentile: &str| document["request_latency_us"][percentile].to_string();
            table.row(vec![
                count.to_string(),
                show(Some(totals.records as f64 / seconds), 0),
                show(Some(totals.requests as f64 / seconds), 0),
                latency("p50"),
                latency("p99"),
                show(cpu.filter(|_| totals.requests > 0).map(|cpu| cpu * 1e6 / totals.requests as f64), 2),
                show(cpu.filter(|_| totals.bytes > 0).map(|cpu| cpu * 1e9 / totals.bytes as f64), 2),
                show(outcome.broker.map(|broker| broker.resident_bytes as f64 / f64::from(1 << 20)), 1),
                show(self.growth(at).map(|bytes| bytes / 1024.0), 1),
                show(Some(outcome.generator.cpu.as_secs_f64() / seconds), 2),
            ]);
        }
        table.print(0)?;
        for (name, times) in self.json(label)["errors"].as_object().into_iter().flatten() {
            output::line(format_args!("{times} times {name}"))?;
        }
        Ok(())
    }
}

/// From so many with so many bytes to so many more.
fn growth((first, before): (u32, f64), (count, now): (u32, f64)) -> Option<f64> {
    (count > first).then(|| (now - before) / f64::from(count - first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_go_up_and_none_is_made_twice() {
        assert_eq!(ascending(vec![100, 1, 10, 100]), [1, 10, 100]);
    }

    #[test]
    fn memory_counts_from_the_first_run() {
        assert_eq!(growth((10, 1e6), (10, 1e6)), None);
        assert_eq!(growth((10, 1e6), (110, 1.5e6)), Some(5000.0));
    }
}

//! What a run has shown: a few lines, a JSON document, a file of latencies.

use super::super::output::{self, Table};
use crate::client::error::code_name;
use crate::load::measure::{Brief, Latencies, Outcome, Totals, Usage};
use crate::load::plan::{Plan, Values, Work};
use hdrhistogram::Histogram;
use kafka_protocol::error::ResponseError;
use serde_json::{Value, json};
use std::fmt::Write;
use std::io;

const PERCENTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// The latencies that a run is about.
pub fn main_latencies(outcome: &Outcome) -> &Latencies {
    outcome.end_to_end.as_ref().unwrap_or(&outcome.latencies)
}

pub fn print(label: &str, plan: &Plan, outcome: &Outcome) -> io::Result<()> {
    let heading = match label {
        "" => describe(plan),
        label => format!("{label}: {}", describe(plan)),
    };
    output::line(heading)?;
    let seconds = outcome.elapsed.as_secs_f64();
    let Totals { records, bytes, requests, .. } = outcome.totals;
    output::line(format_args!(
        "  {:.0} records/s, {:.1} MB/s, {:.0} requests/s for {seconds:.1} s",
        records as f64 / seconds,
        bytes as f64 / 1e6 / seconds,
        requests as f64 / seconds,
    ))?;
    let mut head = vec!["microseconds"];
    head.extend(PERCENTILES.map(|(name, _)| name));
    head.push("max");
    let mut table = Table::new(&head);
    let mut row = |name: &str, latencies: &Latencies| {
        let histogram = latencies.histogram();
        if histogram.is_empty() {
            return;
        }
        let mut cells = vec![name.to_owned()];
        cells.extend(PERCENTILES.map(|(_, at)| histogram.value_at_quantile(at).to_string()));
        cells.push(histogram.max().to_string());
        table.row(cells);
    };
    row(request_name(plan), &outcome.latencies);
    if let Some(latencies) = &outcome.end_to_end {
        row("end to end", latencies);
    }
    if let Some(latencies) = &outcome.probes {
        row("probe", latencies);
    }
    table.print(2)?;
    if let Some(broker) = outcome.broker {
        let cpu = broker.cpu.as_secs_f64();
        output::line(format_args!(
            "  broker: {:.2} cores, {:.2} CPU-s/GB, {:.2} us CPU a request, {} MiB resident",
            cpu / seconds,
            cpu / (bytes as f64 / 1e9),
            cpu * 1e6 / requests as f64,
            broker.resident_bytes >> 20,
        ))?;
    }
    output::line(format_args!("  generator: {:.2} cores", outcome.generator.cpu.as_secs_f64() / seconds))?;
    if plan.fetch.verify {
        let checked = outcome.checked;
        output::line(format_args!(
            "  checked: {} batches, {} with a wrong CRC, {} offsets missing",
            checked.batches, checked.damaged, checked.missing
        ))?;
    }
    for (code, times) in &outcome.codes {
        output::line(format_args!("  {times} times {}", error_name(*code)))?;
    }
    Ok(())
}

pub fn json(label: &str, plan: &Plan, outcome: &Outcome) -> Value {
    let seconds = outcome.elapsed.as_secs_f64();
    let usage = |used: Usage| json!({ "cpu_seconds": used.cpu.as_secs_f64(), "resident_bytes": used.resident_bytes });
    let errors: serde_json::Map<String, Value> =
        outcome.codes.iter().map(|(code, times)| (error_name(*code), json!(times))).collect();
    let checked = outcome.checked;
    json!({
        "label": label,
        "work": work_name(plan.work),
        "topic": plan.topic,
        "connections": plan.connections,
        "threads": plan.threads,
        "depth": plan.depth,
        "rate_records_per_second": plan.rate,
        "record_bytes": plan.values.mean(),
        "record_sizes": sizes(&plan.values),
        "batch_records": plan.batch_records,
        "partitions_per_request": plan.partitions_per_request,
        "skew": plan.skew.map(|skew| format!("{skew:?}").to_lowercase()),
        "idempotent": plan.idempotent,
        "consumers": plan.consumers,
        "probes": plan.probes,
        "idle_connections": plan.idle,
        "acks": plan.acks,
        "compression": format!("{:?}", plan.compression.codec).to_lowercase(),
        "elapsed_seconds": seconds,
        "totals": totals(outcome.totals),
        "request_latency_us": percentiles(&outcome.latencies),
        "end_to_end_latency_us": outcome.end_to_end.as_ref().map(percentiles),
        "probe_latency_us": outcome.probes.as_ref().map(percentiles),
        "broker": outcome.broker.map(usage),
        "generator": usage(outcome.generator),
        "errors": errors,
        "latency_curve_us": curve(main_latencies(outcome)),
        "consumed": { "batches": checked.batches, "damaged": checked.damaged, "missing_offsets": checked.missing },
        "whole_run": { "totals": totals(outcome.whole), "sent_records": outcome.sent_records },
        "step_seconds": outcome.step.as_secs_f64(),
        "steps": outcome.steps.iter().map(|step| totals(*step)).collect::<Vec<_>>(),
        "step_latency_us": outcome.series.iter().map(brief).collect::<Vec<_>>(),
    })
}

/// The text form that HdrHistogram's tools read: value, percentile, count so far, 1 / (1 - percentile).
pub fn hgrm(latencies: &Latencies) -> String {
    let histogram = latencies.histogram();
    let mut text = format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut count = 0;
    for step in histogram.iter_quantiles(5) {
        count += step.count_since_last_iteration();
        let (value, quantile) = (step.value_iterated_to(), step.quantile_iterated_to());
        let inverse = if quantile < 1.0 { format!("{:>14.2}", 1.0 / (1.0 - quantile)) } else { String::new() };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{value:>12}.000 {quantile:>2.12} {count:>10} {inverse}");
    }
    let _ = writeln!(text, "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]", histogram.mean(), histogram.stdev());
    let _ = writeln!(text, "#[Max     = {:>12.3}, Total count    = {:>12}]", histogram.max() as f64, histogram.len());
    text
}

fn describe(plan: &Plan) -> String {
    let idempotent = if plan.idempotent { ", idempotent" } else { "" };
    let skew = plan.skew.map(|skew| format!(", {skew:?} skew").to_lowercase()).unwrap_or_default();
    let (sizes, records, acks) = (sizes(&plan.values), plan.batch_records, plan.acks);
    let batches = format!("{sizes} x {records} records, acks={acks}{idempotent}{skew}");
    let rate = plan.rate.map(|rate| format!(", {rate} records/s wanted")).unwrap_or_default();
    match plan.work {
        Work::Produce => {
            format!("produce, {} connections x {} in flight, {batches}{rate}", plan.connections, plan.depth)
        }
        Work::Consume => {
            format!("consume, {} connections, {} B a fetch{rate}", plan.connections, plan.fetch.max_bytes)
        }
        Work::EndToEnd => format!("end to end, {} producers and consumers, {batches}{rate}", plan.connections),
        Work::Mixed => format!(
            "mixed, {} producers x {} in flight, {} consumers, {} probes, {batches}{rate}",
            plan.connections, plan.depth, plan.consumers, plan.probes
        ),
    }
}

fn sizes(values: &Values) -> String {
    match values {
        Values::Fixed(bytes) => format!("{bytes} B"),
        Values::Uniform { least, most } => format!("{least}-{most} B"),
        Values::Exponential { mean } => format!("about {mean} B"),
        Values::Lines(lines) => format!("{} replayed lines of {:.0} B", lines.len(), values.mean()),
    }
}

fn work_name(work: Work) -> &'static str {
    match work {
        Work::Produce => "produce",
        Work::Consume => "consume",
        Work::EndToEnd => "e2e",
        Work::Mixed => "mixed",
    }
}

fn request_name(plan: &Plan) -> &'static str {
    match plan.work {
        Work::Consume => "fetch",
        Work::Produce | Work::EndToEnd | Work::Mixed => "acknowledged",
    }
}

fn totals(totals: Totals) -> Value {
    json!({ "records": totals.records, "bytes": totals.bytes, "requests": totals.requests, "errors": totals.errors })
}

fn percentiles(latencies: &Latencies) -> Value {
    percentiles_of(latencies.histogram())
}

/// Pairs of quantile and microseconds, closer to each other towards the end.
fn curve(latencies: &Latencies) -> Vec<(f64, u64)> {
    let steps = latencies.histogram().iter_quantiles(5);
    steps.map(|step| (step.quantile_iterated_to(), step.value_iterated_to())).collect()
}

fn brief(step: &Brief) -> Value {
    percentiles_of(step.histogram())
}

fn percentiles_of(histogram: &Histogram<u64>) -> Value {
    let mut map: serde_json::Map<String, Value> =
        PERCENTILES.iter().map(|(name, at)| ((*name).to_owned(), json!(histogram.value_at_quantile(*at)))).collect();
    map.insert("max".to_owned(), json!(histogram.max()));
    map.insert("count".to_owned(), json!(histogram.len()));
    Value::Object(map)
}

fn error_name(code: i16) -> String {
    ResponseError::try_from_code(code).map_or_else(|| format!("error code {code}"), code_name)
}

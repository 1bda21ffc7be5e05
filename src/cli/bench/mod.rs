//! `corelog bench`: load on a cluster, and what it shows.

mod args;
mod html;
mod plot;
mod report;
mod sweep;
mod sweep_plots;

use super::output;
use crate::client::admin::{NewTopic, create_topic, delete_topic};
use crate::client::cluster::Cluster;
use crate::client::error::ClientError;
use crate::load::measure::{Outcome, Phase};
use crate::load::plan::{Plan, Work};
use crate::load::{self, Progress};
use anyhow::Context;
use args::{
    CommonArgs, ConnectionsBench, ConsumeBench, EndToEndBench, MixedBench, PartitionsBench, ProduceBench, ReportArgs,
};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use kafka_protocol::error::ResponseError;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

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
  corelog bench e2e --rate 5000 --batch 1 --json               producer to consumer
  corelog bench mixed --rate 100000 --probes 4                 all at once: what others notice of a load
  corelog bench connections --idle --rate 20000 -c 4           what open connections cost
  corelog bench partitions --partitions-per-request 50         how cost grows with partitions")]
pub enum BenchCommand {
    /// Send batches: rate, and latency until they are acknowledged
    Produce(ProduceBench),
    /// Fetch a topic's partitions, over and over or --once; --verify checks what comes
    Consume(ConsumeBench),
    /// Send at a rate and read what was sent: latency from due to received
    E2e(EndToEndBench),
    /// Producers, consumers, and probes that send one record at a time, all together
    Mixed(MixedBench),
    /// Produce over more and more connections, working or idle: cost, latency, and memory of each
    Connections(ConnectionsBench),
    /// Produce to more and more partitions: cost and latency
    Partitions(PartitionsBench),
    /// Lay runs over each other in one HTML file with plots
    Report(ReportArgs),
}

pub fn run(command: BenchCommand) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Produce(args) => measure(args.plan()?),
        BenchCommand::Consume(args) => measure(args.plan()?),
        BenchCommand::E2e(args) => measure(args.plan()?),
        BenchCommand::Mixed(args) => measure(args.plan()?),
        BenchCommand::Connections(args) => sweep::connections(args),
        BenchCommand::Partitions(args) => sweep::partitions(args),
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
    let mut cluster = common.connect.connect()?;
    let (outcome, removed) = once(&common, &plan, &common.topic, &mut cluster)?;
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

/// One run, on a topic that is made for it if it does not exist; what it showed, and whether a topic that was made could be removed.
fn once(
    common: &CommonArgs,
    plan: &Plan,
    named: &str,
    cluster: &mut Cluster,
) -> anyhow::Result<(Outcome, Result<(), ClientError>)> {
    plan.check().map_err(anyhow::Error::msg)?;
    let made = plan.work != Work::Consume && make_topic(common, &plan.topic, cluster)?;
    let bar = progress_bar(common, named);
    let outcome = load::run(plan, cluster, &common.pids, &mut |progress| show(&bar, progress));
    bar.finish_and_clear();
    let removed = match made && !common.keep {
        true => delete_topic(cluster, &plan.topic),
        false => Ok(()),
    };
    Ok((outcome?, removed))
}

/// Makes the topic if it is not there; whether it was.
fn make_topic(common: &CommonArgs, name: &str, cluster: &mut Cluster) -> anyhow::Result<bool> {
    let topic = NewTopic {
        name: name.to_owned(),
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

fn progress_bar(common: &CommonArgs, named: &str) -> ProgressBar {
    if common.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new((common.warm_up + common.duration).as_secs());
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} s {msg}");
    bar.set_style(style.expect("invariant: a constant template"));
    bar.with_prefix(named.to_owned())
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

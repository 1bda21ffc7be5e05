//! `corelog topic describe`.

use super::select::select;
use crate::base::show::show_bytes;
use crate::cli::connect::ConnectArgs;
use crate::cli::output::{self, Table, show_ids};
use crate::client::admin::{self, ConfigEntry, ConfigSource, ReplicaSize};
use crate::client::error::{ClientError, code_name};
use crate::client::metadata::{PartitionInfo, TopicInfo, Topics};
use clap::Args;
use kafka_protocol::error::ResponseError;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  corelog topic describe clicks
  corelog topic describe 'app-*' --json
  corelog topic describe --problems      partitions without leader or with replicas missing from the ISR")]
pub struct DescribeArgs {
    /// Names, or patterns with * and ? (quote them) [default: all topics that are not internal]
    #[arg(value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only partitions without a leader or with fewer in-sync replicas than replicas
    #[arg(long)]
    problems: bool,
    /// Show every setting, also those at their defaults
    #[arg(long)]
    all_configs: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// The bytes of a partition's replicas by topic, partition and broker.
type Sizes = HashMap<(String, i32, i32), i64>;

pub fn run(args: DescribeArgs) -> anyhow::Result<ExitCode> {
    let mut cluster = args.connect.connect()?;
    let metadata = cluster.metadata(&Topics::All, false)?;
    let existing: Vec<String> = metadata.topics.keys().cloned().collect();
    let names = match args.topics.is_empty() {
        true => metadata.topics.values().filter(|t| !t.internal).map(|t| t.name.clone()).collect(),
        false => select(&args.topics, &existing)?,
    };
    // One that is missing does not keep the others from being shown.
    let (names, missing): (Vec<String>, Vec<String>) =
        names.into_iter().partition(|name| metadata.topics.contains_key(name));
    let topics: Vec<&TopicInfo> = names.iter().filter_map(|name| metadata.topics.get(name)).collect();
    let wanted: Vec<(String, Vec<i32>)> =
        topics.iter().map(|t| (t.name.clone(), t.partitions.iter().map(|p| p.index).collect())).collect();
    let sizes: Sizes = admin::replica_sizes(&mut cluster, &wanted).into_iter().map(size_entry).collect();
    let configs = if names.is_empty() { BTreeMap::new() } else { admin::topic_configs(&mut cluster, &names)? };
    let shown = topics.iter().map(|topic| Shown {
        topic,
        partitions: topic.partitions.iter().filter(|p| !args.problems || has_problem(p)).collect(),
        configs: configs.get(&topic.name).map_or(&[], Vec::as_slice),
        sizes: &sizes,
    });
    let shown: Vec<Shown> = shown.filter(|s| !args.problems || !s.partitions.is_empty()).collect();
    if args.json && (missing.is_empty() || !shown.is_empty()) {
        output::json(&shown.iter().map(|s| s.json(args.all_configs)).collect())?;
    } else {
        for (at, topic) in shown.iter().enumerate() {
            if at > 0 {
                output::line("")?;
            }
            topic.print(args.all_configs)?;
        }
    }
    let Some(last) = missing.last() else { return Ok(ExitCode::SUCCESS) };
    let error =
        |name| ClientError::like(ResponseError::UnknownTopicOrPartition, format!("topic {name}"), "it does not exist");
    for name in missing.iter().take(missing.len() - 1) {
        output::tell(format_args!("error: {}", error(name)));
    }
    // The last one with what to do about all of them.
    Err(error(last).into())
}

struct Shown<'a> {
    topic: &'a TopicInfo,
    partitions: Vec<&'a PartitionInfo>,
    configs: &'a [ConfigEntry],
    sizes: &'a Sizes,
}

impl Shown<'_> {
    fn print(&self, all_configs: bool) -> anyhow::Result<()> {
        let t = self.topic;
        output::line(format_args!("{}{}", t.name, if t.internal { "  (internal)" } else { "" }))?;
        if let Some(id) = t.id {
            output::line(format_args!("  topic id  {id}"))?;
        }
        if let Some(error) = t.error {
            output::line(format_args!("  error     {}", code_name(error)))?;
        }
        let configs: Vec<&ConfigEntry> = self.configs(all_configs).collect();
        for (at, c) in configs.iter().enumerate() {
            let label = if at == 0 { "settings" } else { "        " };
            let value = c.value.as_deref().unwrap_or("(hidden)");
            output::line(format_args!("  {label}  {}={value}{}", c.name, from(c.source)))?;
        }
        let mut table = Table::new(&["PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR", "SIZE", "NOTE"]);
        for p in &self.partitions {
            table.row(vec![
                p.index.to_string(),
                p.leader.map_or("-".to_owned(), |id| id.to_string()),
                p.leader_epoch.map_or("-".to_owned(), |e| e.to_string()),
                show_ids(&p.replicas),
                show_ids(&p.isr),
                self.leader_size(p).map_or("-".to_owned(), |bytes| show_bytes(bytes.max(0) as u64)),
                note(p),
            ]);
        }
        table.print(2)?;
        Ok(())
    }

    fn json(&self, all_configs: bool) -> Value {
        let t = self.topic;
        let partition = |p: &&PartitionInfo| {
            let sizes: BTreeMap<String, i64> = p
                .replicas
                .iter()
                .filter_map(|id| Some((id.to_string(), *self.sizes.get(&(t.name.clone(), p.index, *id))?)))
                .collect();
            json!({
                "partition": p.index,
                "leader": p.leader,
                "leader_epoch": p.leader_epoch,
                "replicas": p.replicas,
                "isr": p.isr,
                "offline_replicas": p.offline,
                "error": p.error.map(code_name),
                "size_bytes": self.leader_size(p),
                "replica_size_bytes": sizes,
            })
        };
        let configs: BTreeMap<&str, Value> = self
            .configs(all_configs)
            .map(|c| {
                (
                    c.name.as_str(),
                    json!({ "value": c.value, "source": source_name(c.source), "read_only": c.read_only }),
                )
            })
            .collect();
        json!({
            "topic": t.name,
            "topic_id": t.id.map(|id| id.to_string()),
            "internal": t.internal,
            "error": t.error.map(code_name),
            "partitions": self.partitions.iter().map(partition).collect::<Vec<_>>(),
            "configs": configs,
        })
    }

    fn configs(&self, all: bool) -> impl Iterator<Item = &ConfigEntry> {
        self.configs.iter().filter(move |c| all || c.source != ConfigSource::Default)
    }

    fn leader_size(&self, p: &PartitionInfo) -> Option<i64> {
        self.sizes.get(&(self.topic.name.clone(), p.index, p.leader?)).copied()
    }
}

fn size_entry(size: ReplicaSize) -> ((String, i32, i32), i64) {
    ((size.topic, size.partition, size.broker), size.bytes)
}

fn has_problem(p: &PartitionInfo) -> bool {
    p.leader.is_none() || p.isr.len() < p.replicas.len() || !p.offline.is_empty()
}

fn note(p: &PartitionInfo) -> String {
    let missing: Vec<i32> = p.replicas.iter().copied().filter(|id| !p.isr.contains(id)).collect();
    let mut notes = Vec::new();
    if p.leader.is_none() {
        notes.push("no leader".to_owned());
    }
    if !missing.is_empty() {
        notes.push(format!("out of sync: {}", show_ids(&missing)));
    }
    if !p.offline.is_empty() {
        notes.push(format!("offline: {}", show_ids(&p.offline)));
    }
    notes.join("; ")
}

fn from(source: ConfigSource) -> &'static str {
    match source {
        ConfigSource::Topic => "",
        ConfigSource::DynamicBroker | ConfigSource::StaticBroker => "  (from the broker)",
        ConfigSource::Default => "  (default)",
        ConfigSource::Other(_) => "  (other source)",
    }
}

fn source_name(source: ConfigSource) -> String {
    match source {
        ConfigSource::Topic => "topic".to_owned(),
        ConfigSource::DynamicBroker => "dynamic-broker".to_owned(),
        ConfigSource::StaticBroker => "static-broker".to_owned(),
        ConfigSource::Default => "default".to_owned(),
        ConfigSource::Other(code) => format!("source-{code}"),
    }
}

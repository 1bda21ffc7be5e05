//! `corelog topic list`.

use crate::cli::connect::ConnectArgs;
use crate::cli::output::{self, Table};
use crate::client::metadata::{TopicInfo, Topics};
use clap::Args;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  corelog topic list
  corelog topic list --internal --json | jq -r '.[].topic'")]
pub struct ListArgs {
    /// Also the cluster's own topics, such as __consumer_offsets
    #[arg(long)]
    internal: bool,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub fn run(args: ListArgs) -> anyhow::Result<ExitCode> {
    let mut cluster = args.connect.connect()?;
    let metadata = cluster.metadata(&Topics::All, false)?;
    let topics: Vec<&TopicInfo> = metadata.topics.values().filter(|t| args.internal || !t.internal).collect();
    if args.json {
        output::json(&topics.iter().map(|t| as_json(t)).collect())?;
    } else if topics.is_empty() {
        output::tell("no topics yet; `corelog topic create NAME` makes one");
    } else {
        let mut table = Table::new(&["TOPIC", "PARTITIONS", "REPLICAS", "NOTE"]);
        for topic in topics {
            table.row(vec![
                topic.name.clone(),
                topic.partitions.len().to_string(),
                replication_factor(topic).to_string(),
                note(topic),
            ]);
        }
        table.print(0)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(topic: &TopicInfo) -> serde_json::Value {
    serde_json::json!({
        "topic": topic.name,
        "topic_id": topic.id.map(|id| id.to_string()),
        "partitions": topic.partitions.len(),
        "replication_factor": replication_factor(topic),
        "internal": topic.internal,
        "leaderless_partitions": topic.partitions.iter().filter(|p| p.leader.is_none()).count(),
        "under_replicated_partitions": topic.partitions.iter().filter(|p| p.isr.len() < p.replicas.len()).count(),
    })
}

fn replication_factor(topic: &TopicInfo) -> usize {
    topic.partitions.iter().map(|p| p.replicas.len()).max().unwrap_or(0)
}

fn note(topic: &TopicInfo) -> String {
    let mut notes = Vec::new();
    if topic.internal {
        notes.push("internal".to_owned());
    }
    let leaderless = topic.partitions.iter().filter(|p| p.leader.is_none()).count();
    if leaderless > 0 {
        notes.push(format!("{leaderless} without leader"));
    }
    let behind = topic.partitions.iter().filter(|p| p.isr.len() < p.replicas.len()).count();
    if behind > 0 {
        notes.push(format!("{behind} under-replicated"));
    }
    notes.join(", ")
}

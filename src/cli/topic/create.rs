//! `corelog topic create`.

use crate::cli::connect::ConnectArgs;
use crate::cli::keyval::KeyValue;
use crate::cli::output;
use crate::client::admin::{self, CreatedTopic, NewTopic};
use anyhow::bail;
use clap::Args;
use kafka_protocol::error::ResponseError;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  corelog topic create clicks --partitions 8
  corelog topic create clicks --config retention.ms=-1 --config max.message.bytes=10485760
  corelog topic create clicks --replica-assignment 1:2,2:3,3:1     3 partitions, 2 replicas each, leaders 1, 2, 3
  corelog topic create clicks --if-not-exists --json")]
pub struct CreateArgs {
    /// Names of the topics to create: letters, digits, '.', '_' and '-'
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Number of partitions [default: the broker's num.partitions]
    #[arg(long, short = 'p', value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Copies of each partition, on different machines [default: the broker's default.replication.factor]
    #[arg(long, short = 'r', value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// A setting of the topic; may be repeated
    #[arg(long = "config", short = 'c', value_name = "KEY=VALUE")]
    configs: Vec<KeyValue>,
    /// Broker ids, ':' between a partition's replicas, ',' between partitions
    #[arg(long, value_name = "1:2,2:3,…", value_parser = parse_assignment, conflicts_with_all = ["partitions", "replication_factor"])]
    replica_assignment: Option<Assignment>,
    /// Do nothing, successfully, where the topic exists already
    #[arg(long)]
    if_not_exists: bool,
    /// Only check whether the cluster would do it
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Clone, Debug, PartialEq)]
struct Assignment(Vec<Vec<i32>>);

pub fn run(args: CreateArgs) -> anyhow::Result<ExitCode> {
    let mut cluster = args.connect.connect()?;
    let mut results = Vec::new();
    for name in &args.topics {
        let topic = NewTopic {
            name: name.clone(),
            partitions: args.partitions,
            replication_factor: args.replication_factor,
            assignments: args.replica_assignment.clone().map_or_else(Vec::new, |a| a.0),
            configs: args.configs.iter().cloned().map(Into::into).collect(),
        };
        let created = match admin::create_topic(&mut cluster, &topic, args.dry_run) {
            Ok(created) => Some(created),
            Err(e) if args.if_not_exists && e.code() == Some(ResponseError::TopicAlreadyExists) => None,
            Err(error) => return Err(error.into()),
        };
        if !args.json {
            output::line(sentence(name, created.as_ref(), args.dry_run))?;
        }
        results.push(as_json(name, created.as_ref(), args.dry_run));
    }
    if args.json {
        output::json(&results.into())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn sentence(name: &str, created: Option<&CreatedTopic>, dry_run: bool) -> String {
    let Some(created) = created else { return format!("{name} exists already") };
    let mut text = format!("{} {name}", if dry_run { "could create" } else { "created" });
    if let (Some(p), Some(r)) = (created.partitions, created.replication_factor) {
        text += &format!(" ({p} partition{}, replication factor {r})", if p == 1 { "" } else { "s" });
    }
    text
}

fn as_json(name: &str, created: Option<&CreatedTopic>, dry_run: bool) -> serde_json::Value {
    serde_json::json!({
        "topic": name,
        "created": created.is_some() && !dry_run,
        "topic_id": created.and_then(|c| c.id).map(|id| id.to_string()),
        "partitions": created.and_then(|c| c.partitions),
        "replication_factor": created.and_then(|c| c.replication_factor),
    })
}

fn parse_assignment(text: &str) -> anyhow::Result<Assignment> {
    let partition = |part: &str| -> anyhow::Result<Vec<i32>> {
        part.split(':')
            .map(|id| id.trim().parse::<i32>().map_err(|_| anyhow::anyhow!("'{id}' is not a broker id")))
            .collect()
    };
    let partitions = text.split(',').map(partition).collect::<anyhow::Result<Vec<_>>>()?;
    let copies = partitions.first().map_or(0, Vec::len);
    if partitions.iter().any(|p| p.len() != copies) {
        bail!("every partition needs the same number of replicas");
    }
    Ok(Assignment(partitions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_read_as_kafka_topics_reads_them() {
        assert_eq!(parse_assignment("1:2,2:1").expect("valid"), Assignment(vec![vec![1, 2], vec![2, 1]]));
        for wrong in ["", "1:2,3", "a", "1::2"] {
            assert!(parse_assignment(wrong).is_err(), "{wrong}");
        }
    }
}

//! `corelog topic alter`.

use super::select::select;
use crate::cli::connect::ConnectArgs;
use crate::cli::keyval::KeyValue;
use crate::cli::output;
use crate::client::admin;
use crate::client::cluster::Cluster;
use crate::client::metadata::Topics;
use anyhow::bail;
use clap::{ArgGroup, Args};
use std::process::ExitCode;

#[derive(Args)]
#[command(group(ArgGroup::new("change").required(true).multiple(true).args(["partitions", "set", "unset"])))]
#[command(after_help = "\
Examples:
  corelog topic alter clicks --partitions 16
  corelog topic alter clicks --set retention.ms=86400000 --unset max.message.bytes
Partitions can only be added, and keys then land on other partitions than before.")]
pub struct AlterArgs {
    /// Names, or patterns with * and ? (quote them)
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// The new number of partitions, more than there are
    #[arg(long, short = 'p', value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Set a setting; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<KeyValue>,
    /// Return a setting to its default; may be repeated
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub fn run(args: AlterArgs) -> anyhow::Result<ExitCode> {
    let mut cluster = args.connect.connect()?;
    let existing: Vec<String> = cluster.metadata(&Topics::All, false)?.topics.into_keys().collect();
    let set: Vec<(String, String)> = args.set.iter().cloned().map(Into::into).collect();
    let mut results = Vec::new();
    for name in select(&args.topics, &existing)? {
        check_known(&mut cluster, &name, &args.unset)?;
        // Settings first: they are checked as a whole, and can be taken back if adding partitions is refused.
        if !set.is_empty() || !args.unset.is_empty() {
            admin::alter_topic_configs(&mut cluster, &name, &set, &args.unset)?;
        }
        if let Some(count) = args.partitions {
            admin::add_partitions(&mut cluster, &name, count)?;
        }
        if !args.json {
            output::line(format_args!("altered {name}"))?;
        }
        results.push(serde_json::json!({
            "topic": name,
            "partitions": args.partitions,
            "set": set.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "unset": args.unset,
        }));
    }
    if args.json {
        output::json(&results.into())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Brokers take the unsetting of whatever name for done, which hides a mistake; what they describe is what they know.
fn check_known(cluster: &mut Cluster, topic: &str, unset: &[String]) -> anyhow::Result<()> {
    if unset.is_empty() {
        return Ok(());
    }
    let described = admin::topic_configs(cluster, &[topic.to_owned()])?;
    let known = described.get(topic).map_or(&[][..], Vec::as_slice);
    match unset.iter().find(|name| !known.iter().any(|entry| entry.name == **name)) {
        Some(name) => bail!(
            "alter settings of topic {topic}: there is no setting {name}; \
             `corelog topic describe {topic} --all-configs` shows what there is"
        ),
        None => Ok(()),
    }
}

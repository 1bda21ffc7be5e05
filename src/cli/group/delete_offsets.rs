//! `corelog group delete-offsets`.

use super::failures::{Failures, has_members};
use super::scope::{self, TopicScope, parse_topic};
use crate::cli::connect::ConnectArgs;
use crate::cli::output;
use crate::client::error::code_name;
use crate::client::groups::{TopicPartitionName, admin};
use anyhow::anyhow;
use clap::Args;
use kafka_protocol::error::ResponseError;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  corelog group delete-offsets reports --topic clicks
  corelog group delete-offsets reports --topic clicks:0,3 --topic views

A group that has no members is gone with its last offset.")]
pub struct DeleteOffsetsArgs {
    #[arg(value_name = "GROUP")]
    group: String,
    /// A topic, or some of its partitions; may be repeated
    #[arg(long = "topic", value_name = "TOPIC[:P,…]", required = true, value_parser = parse_topic)]
    topics: Vec<TopicScope>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub fn run(args: DeleteOffsetsArgs) -> anyhow::Result<ExitCode> {
    let mut cluster = args.connect.connect()?;
    let partitions: Vec<TopicPartitionName> = scope::partitions(&mut cluster, &args.topics)?.into_iter().collect();
    let outcomes = admin::delete_offsets(&mut cluster, &args.group, &partitions)?;
    let (mut results, mut failures, mut are_members) = (Vec::new(), Failures::default(), false);
    for ((topic, index), outcome) in outcomes {
        let code = outcome.as_ref().err().map(|error| error.code().map_or_else(|| error.to_string(), code_name));
        results
            .push(serde_json::json!({ "topic": topic, "partition": index, "deleted": code.is_none(), "error": code }));
        match outcome {
            Err(error) => {
                are_members |= error.code() == Some(ResponseError::GroupSubscribedToTopic);
                failures.add(&(topic, index), error);
            }
            Ok(()) if args.json => {}
            Ok(()) => output::line(format_args!("{topic}-{index}: the offset is deleted, if there was one"))?,
        }
    }
    if args.json {
        output::json(&results.into())?;
    }
    let ended = super::end(failures.errors(&format!("delete offsets of group {}", args.group)));
    match admin::describe(&mut cluster, &args.group) {
        Ok(info) if are_members => ended.map_err(|error| anyhow!("{error}: {}", has_members(&info))),
        _ => ended,
    }
}

//! `corelog group delete-offsets`.

use super::scope::{self, TopicScope, parse_topic};
use crate::cli::connect::ConnectArgs;
use crate::cli::output;
use crate::client::error::code_name;
use crate::client::groups::{TopicPartitionName, admin};
use clap::Args;
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
    let (mut results, mut errors) = (Vec::new(), Vec::new());
    for ((topic, index), outcome) in outcomes {
        let code = outcome.as_ref().err().map(|error| error.code().map_or_else(|| error.to_string(), code_name));
        results
            .push(serde_json::json!({ "topic": topic, "partition": index, "deleted": code.is_none(), "error": code }));
        match outcome {
            Err(error) => errors.push(error.into()),
            Ok(()) if args.json => {}
            Ok(()) => output::line(format_args!("{topic}-{index}: the offset is deleted, if there was one"))?,
        }
    }
    if args.json {
        output::json(&results.into())?;
    }
    super::end(errors)
}

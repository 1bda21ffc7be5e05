//! `corelog topic delete`.

use super::select::{is_pattern, select};
use crate::cli::connect::ConnectArgs;
use crate::cli::output;
use crate::client::admin;
use crate::client::metadata::Topics;
use anyhow::bail;
use clap::Args;
use kafka_protocol::error::ResponseError;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  corelog topic delete clicks
  corelog topic delete 'test-*'          shows what would be deleted
  corelog topic delete 'test-*' --yes    deletes it
  corelog topic delete clicks --if-exists --json")]
pub struct DeleteArgs {
    /// Names, or patterns with * and ? (quote them; internal topics never match)
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Do nothing, successfully, where the topic does not exist
    #[arg(long)]
    if_exists: bool,
    /// Really delete what a pattern matches
    #[arg(long, short = 'y')]
    yes: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub fn run(args: DeleteArgs) -> anyhow::Result<ExitCode> {
    let mut cluster = args.connect.connect()?;
    let patterns = args.topics.iter().any(|name| is_pattern(name));
    let existing = match patterns {
        true => cluster.metadata(&Topics::All, false)?,
        false => Default::default(),
    };
    let existing: Vec<String> = existing.topics.into_values().filter(|t| !t.internal).map(|t| t.name).collect();
    let mut wanted = args.topics.clone();
    if args.if_exists {
        wanted.retain(|name| {
            let matches = !is_pattern(name) || select(std::slice::from_ref(name), &existing).is_ok();
            if !matches {
                output::tell(format_args!("no topic matches '{name}'"));
            }
            matches
        });
    }
    let selected = select(&wanted, &existing)?;
    if patterns && !selected.is_empty() && !args.yes {
        let plural = if selected.len() == 1 { "" } else { "s" };
        bail!("this would delete {} topic{plural}; add --yes to do it:\n  {}", selected.len(), selected.join("\n  "));
    }
    let mut results = Vec::new();
    for name in &selected {
        let deleted = match admin::delete_topic(&mut cluster, name) {
            Ok(()) => true,
            Err(e) if args.if_exists && e.code() == Some(ResponseError::UnknownTopicOrPartition) => false,
            Err(error) => return Err(error.into()),
        };
        if !args.json {
            output::line(if deleted { format!("deleted {name}") } else { format!("{name} does not exist") })?;
        }
        results.push(serde_json::json!({ "topic": name, "deleted": deleted }));
    }
    if args.json {
        output::json(&results.into())?;
    }
    Ok(ExitCode::SUCCESS)
}

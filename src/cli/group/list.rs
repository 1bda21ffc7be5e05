//! `corelog group list`.

use crate::cli::connect::ConnectArgs;
use crate::cli::output::{self, Table};
use crate::client::groups::admin::{self, CLASSIC, CONSUMER, ListedGroup};
use clap::Args;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  corelog group list
  corelog group list --state stable,empty
  corelog group list --json | jq -r '.[].group'")]
pub struct ListArgs {
    /// Only groups in one of these states: stable, empty, preparing-rebalance, completing-rebalance, assigning, reconciling
    #[arg(long = "state", value_name = "STATE,…", value_delimiter = ',', value_parser = parse_state)]
    states: Vec<String>,
    /// Only groups of one of these types: classic, consumer (KIP-848)
    #[arg(long = "type", value_name = "TYPE,…", value_delimiter = ',', value_parser = parse_type)]
    kinds: Vec<String>,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub fn run(args: ListArgs) -> anyhow::Result<ExitCode> {
    let mut cluster = args.connect.connect()?;
    let groups = admin::list(&mut cluster, &args.states, &args.kinds)?;
    if args.json {
        output::json(&groups.iter().map(as_json).collect())?;
    } else if groups.is_empty() {
        let all = args.states.is_empty() && args.kinds.is_empty();
        output::tell(if all {
            "no groups yet; consumers make them"
        } else {
            "no group is in such a state, of such a type"
        });
    } else {
        let mut table = Table::new(&["GROUP", "TYPE", "STATE", "PROTOCOL", "COORDINATOR"]);
        for group in groups {
            let protocol = Some(group.protocol_type).filter(|protocol| !protocol.is_empty());
            table.row(vec![
                group.group,
                group.kind,
                group.state.unwrap_or("-".to_owned()),
                protocol.unwrap_or("-".to_owned()),
                group.coordinator.to_string(),
            ]);
        }
        table.print(0)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(group: &ListedGroup) -> serde_json::Value {
    serde_json::json!({
        "group": group.group,
        "type": group.kind,
        "state": group.state,
        "protocol_type": group.protocol_type,
        "coordinator": group.coordinator,
    })
}

const STATES: [&str; 7] =
    ["stable", "empty", "preparing-rebalance", "completing-rebalance", "assigning", "reconciling", "dead"];
/// Apache Kafka 4 has share groups.
const TYPES: [&str; 3] = [CLASSIC, CONSUMER, "share"];

/// Kafka's names have no hyphens: PreparingRebalance.
fn parse_state(text: &str) -> Result<String, String> {
    let name = text.replace('-', "");
    match STATES.iter().any(|state| state.replace('-', "").eq_ignore_ascii_case(&name)) {
        true => Ok(name),
        false => Err(format!("there is no such state, only {}", STATES.join(", "))),
    }
}

fn parse_type(text: &str) -> Result<String, String> {
    match TYPES.iter().any(|kind| kind.eq_ignore_ascii_case(text)) {
        true => Ok(text.to_owned()),
        false => Err(format!("there is no such type, only {}", TYPES.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_types_are_kafkas() {
        for state in ["stable", "Stable", "PreparingRebalance", "preparing-rebalance", "EMPTY"] {
            assert!(parse_state(state).is_ok_and(|name| !name.contains('-')), "{state}");
        }
        assert!(parse_state("foo").is_err() && parse_state("").is_err());
        assert!(parse_type("Consumer").is_ok() && parse_type("new").is_err());
    }
}

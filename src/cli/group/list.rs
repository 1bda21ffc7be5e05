//! `corelog group list`.

use crate::cli::connect::ConnectArgs;
use crate::cli::output::{self, Table};
use crate::client::groups::admin::{self, ListedGroup};
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
    #[arg(long = "state", value_name = "STATE,…", value_delimiter = ',')]
    states: Vec<String>,
    /// Only groups of one of these types: classic, consumer (KIP-848)
    #[arg(long = "type", value_name = "TYPE,…", value_delimiter = ',')]
    kinds: Vec<String>,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub fn run(args: ListArgs) -> anyhow::Result<ExitCode> {
    let mut cluster = args.connect.connect()?;
    // Kafka's names have no hyphens: PreparingRebalance.
    let states: Vec<String> = args.states.iter().map(|state| state.replace('-', "")).collect();
    let groups = admin::list(&mut cluster, &states, &args.kinds)?;
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

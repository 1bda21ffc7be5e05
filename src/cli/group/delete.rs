//! `corelog group delete`.

use super::failures::has_members;
use super::scope;
use crate::cli::connect::ConnectArgs;
use crate::cli::output;
use crate::client::cluster::Cluster;
use crate::client::error::{ClientError, code_name};
use crate::client::groups::admin;
use anyhow::anyhow;
use clap::Args;
use kafka_protocol::error::ResponseError;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  corelog group delete reports
  corelog group delete reports-1 reports-2 --if-exists
  corelog group delete --all-groups           shows what would be deleted
  corelog group delete --all-groups --yes     deletes every group that has no members")]
pub struct DeleteArgs {
    #[arg(value_name = "GROUP", required_unless_present = "all_groups", conflicts_with = "all_groups")]
    groups: Vec<String>,
    /// All groups that have no members
    #[arg(long)]
    all_groups: bool,
    /// Really delete what --all-groups means
    #[arg(long, short = 'y')]
    yes: bool,
    /// Do nothing, successfully, where the group does not exist
    #[arg(long)]
    if_exists: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub fn run(args: DeleteArgs) -> anyhow::Result<ExitCode> {
    let mut cluster = args.connect.connect()?;
    let groups = match args.all_groups {
        true => {
            let empty = admin::list(&mut cluster, &["Empty".to_owned()], &[])?;
            empty.into_iter().map(|group| group.group).collect()
        }
        false => scope::groups(&mut cluster, &args.groups, false)?,
    };
    if args.all_groups && !args.yes && !groups.is_empty() {
        let plural = if groups.len() == 1 { "" } else { "s" };
        let named = if args.json { String::new() } else { format!(":\n  {}", groups.join("\n  ")) };
        if args.json {
            let kept = |group| serde_json::json!({ "group": group, "deleted": false, "error": "--yes is missing" });
            output::json(&groups.iter().map(kept).collect())?;
        }
        return Err(anyhow!("this would delete {} group{plural}; add --yes to do it{named}", groups.len()));
    }
    let (mut results, mut errors) = (Vec::new(), Vec::new());
    for group in &groups {
        let (deleted, error) = match admin::delete(&mut cluster, group) {
            Ok(()) => (true, None),
            Err(error) if args.if_exists && admin::is_not_found(&error) => (false, None),
            Err(error) => (false, Some(error)),
        };
        let code = error.as_ref().map(|error| error.code().map_or_else(|| error.to_string(), code_name));
        results.push(serde_json::json!({ "group": group, "deleted": deleted, "error": code }));
        match error {
            Some(error) => errors.push(explained(&mut cluster, group, error)),
            None if args.json => {}
            None => output::line(if deleted { format!("deleted {group}") } else { format!("{group} does not exist") })?,
        }
    }
    if args.json {
        output::json(&results.into())?;
    }
    super::end(errors)
}

/// Why a group cannot be deleted, with what to do where it has members.
fn explained(cluster: &mut Cluster, group: &str, error: ClientError) -> anyhow::Error {
    if error.code() != Some(ResponseError::NonEmptyGroup) {
        return error.into();
    }
    match admin::describe(cluster, group) {
        Ok(info) => anyhow!("{error}: {}", has_members(&info)),
        Err(_) => error.into(),
    }
}

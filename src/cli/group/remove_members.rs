//! `corelog group remove-members`.

use crate::cli::connect::ConnectArgs;
use crate::cli::output;
use crate::client::error::code_name;
use crate::client::groups::admin;
use clap::Args;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  corelog group describe reports --members                        shows the members with their instances
  corelog group remove-members reports --instance worker-1,worker-2

A static member (group.instance.id) stays in its group when it stops, until its session ends: this removes it at once, and
its partitions go to others. One that is alive joins again.")]
pub struct RemoveMembersArgs {
    #[arg(value_name = "GROUP")]
    group: String,
    /// The static members' group.instance.id
    #[arg(long = "instance", value_name = "ID,…", required = true, value_delimiter = ',')]
    instances: Vec<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub fn run(args: RemoveMembersArgs) -> anyhow::Result<ExitCode> {
    let mut cluster = args.connect.connect()?;
    let outcomes = admin::remove_static_members(&mut cluster, &args.group, &args.instances)?;
    let (mut results, mut errors) = (Vec::new(), Vec::new());
    for (instance, outcome) in outcomes {
        let code = outcome.as_ref().err().map(|error| error.code().map_or_else(|| error.to_string(), code_name));
        results.push(serde_json::json!({ "instance": instance, "removed": code.is_none(), "error": code }));
        match outcome {
            Err(error) => errors.push(error.into()),
            Ok(()) if args.json => {}
            Ok(()) => output::line(format_args!("removed {instance} from {}", args.group))?,
        }
    }
    if args.json {
        output::json(&results.into())?;
    }
    super::end(errors)
}

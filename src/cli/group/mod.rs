//! `corelog group`: consumer groups of any Kafka-compatible cluster.

mod delete;
mod delete_offsets;
mod describe;
mod failures;
mod list;
mod plan;
mod remove_members;
mod reset;
mod scope;

use crate::cli::output;
use clap::{Args, Subcommand};
use std::process::ExitCode;

#[derive(Args)]
pub struct GroupArgs {
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Subcommand)]
enum GroupCommand {
    /// List consumer groups
    List(list::ListArgs),
    /// Show how far groups have read, how far they lag behind, and who reads what
    Describe(describe::DescribeArgs),
    /// Have groups read on elsewhere: by offset, time, or relative to where they are
    ResetOffsets(reset::ResetArgs),
    /// Delete groups that have no members, with their offsets
    Delete(delete::DeleteArgs),
    /// Remove static members (group.instance.id) that have gone
    RemoveMembers(remove_members::RemoveMembersArgs),
    /// Forget a group's offsets of topics that its members do not read
    DeleteOffsets(delete_offsets::DeleteOffsetsArgs),
}

pub fn run(args: GroupArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        GroupCommand::List(args) => list::run(args),
        GroupCommand::Describe(args) => describe::run(args),
        GroupCommand::ResetOffsets(args) => reset::run(args),
        GroupCommand::Delete(args) => delete::run(args),
        GroupCommand::RemoveMembers(args) => remove_members::run(args),
        GroupCommand::DeleteOffsets(args) => delete_offsets::run(args),
    }
}

/// Success if nothing failed. All errors are told, the last one by whoever ends the command, with what to do about it.
fn end(mut errors: Vec<anyhow::Error>) -> anyhow::Result<ExitCode> {
    let Some(last) = errors.pop() else { return Ok(ExitCode::SUCCESS) };
    for error in errors {
        output::tell(format_args!("error: {error}"));
    }
    Err(last)
}

/// `-` for what is not known.
fn or_dash(value: Option<i64>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

//! `corelog topic`: topics of any Kafka-compatible cluster.

mod alter;
mod create;
mod delete;
mod describe;
mod list;
mod select;

use clap::{Args, Subcommand};
use std::process::ExitCode;

#[derive(Args)]
pub struct TopicArgs {
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Subcommand)]
enum TopicCommand {
    /// Create topics
    Create(create::CreateArgs),
    /// List topics
    List(list::ListArgs),
    /// Show partitions, leaders, replicas, sizes and settings
    Describe(describe::DescribeArgs),
    /// Add partitions, set and unset settings
    Alter(alter::AlterArgs),
    /// Delete topics with all their records
    Delete(delete::DeleteArgs),
}

pub fn run(args: TopicArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        TopicCommand::Create(args) => create::run(args),
        TopicCommand::List(args) => list::run(args),
        TopicCommand::Describe(args) => describe::run(args),
        TopicCommand::Alter(args) => alter::run(args),
        TopicCommand::Delete(args) => delete::run(args),
    }
}

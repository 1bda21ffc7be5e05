//! The command line: `corelog` alone is `corelog serve`; the other commands talk to any Kafka-compatible cluster, or
//! read files.

mod completions;
mod connect;
mod consume;
mod dump;
mod keyval;
mod moment;
mod output;
mod produce;
mod serve;
mod topic;
mod verify;

use crate::client::error::ClientError;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A Kafka-compatible storage node in which every core is a broker, and the tools to work with it.
///
/// Without a command it serves: one broker per core, on port 9092 and the ports after it, with its data in
/// ./corelog-data.
#[derive(Parser)]
#[command(name = "corelog", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

const EXAMPLES: &str = "\
Examples:
  corelog                                        serve with defaults
  corelog serve --config server.properties       serve with Kafka's configuration file
  corelog topic create clicks --partitions 8     create a topic
  corelog produce clicks -K : < lines.txt        one record a line, key before the colon
  corelog consume clicks -o earliest -e          print everything there is, then stop
  corelog dump clicks-0/*.log --records          look into segment files
  corelog verify                                 check everything in ./corelog-data";

#[derive(Subcommand)]
enum Command {
    /// Run the broker (what `corelog` alone does)
    Serve(serve::ServeArgs),
    /// Create, list, describe, alter and delete topics of any Kafka-compatible cluster
    Topic(topic::TopicArgs),
    /// Send lines from standard input to a topic
    Produce(Box<produce::ProduceArgs>),
    /// Print a topic's records, by partition and offset or time
    Consume(Box<consume::ConsumeArgs>),
    /// Print and check log files: segments, indexes, snapshots, checkpoints
    Dump(dump::DumpArgs),
    /// Check whole data directories, of Corelog or Apache Kafka, without changing anything
    Verify(verify::VerifyArgs),
    /// Print a completion script for your shell
    Completions(completions::CompletionsArgs),
}

/// Runs the command that the arguments name. Exit codes: 0 done, 1 failed, 2 wrong usage; `verify` has its own.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // 2 would say that damage was found.
        Err(error) if error.use_stderr() && std::env::args_os().nth(1).is_some_and(|arg| arg == "verify") => {
            let _ = error.print();
            return ExitCode::from(verify::COULD_NOT_READ);
        }
        Err(error) => error.exit(),
    };
    let done = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve::run(args).map(|()| ExitCode::SUCCESS),
        Command::Topic(args) => topic::run(args),
        Command::Produce(args) => produce::run(*args),
        Command::Consume(args) => consume::run(*args),
        Command::Dump(args) => dump::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Completions(args) => completions::run(args),
    };
    match done {
        Ok(code) => code,
        Err(error) if output::reader_has_gone(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// Prints an error to stderr with what to do about it.
fn report(error: &anyhow::Error) {
    output::tell(format_args!("error: {error:#}"));
    if let Some(hint) = error.chain().find_map(|e| e.downcast_ref::<ClientError>()).and_then(ClientError::hint) {
        output::tell(format_args!("  what to do: {hint}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_means_serve() {
        let cli = Cli::try_parse_from(["corelog", "--set", "broker.id=3", "--shards", "2"]).expect("valid arguments");
        assert!(cli.command.is_none());
        assert_eq!(cli.serve.set, ["broker.id=3".to_owned()].map(|s| s.parse().expect("key=value")));
        assert!(Cli::try_parse_from(["corelog", "--shards", "2", "topic", "list"]).is_err());
    }
}

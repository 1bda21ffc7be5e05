//! The command line: `corelog` alone is `corelog serve`; the other commands talk to any Kafka-compatible cluster, or
//! read files.

mod bench;
mod check;
mod choices;
mod completions;
mod connect;
mod consume;
mod dump;
mod group;
mod keyval;
mod moment;
mod output;
mod produce;
mod scrub;
mod serve;
mod stop;
mod topic;
mod tune;
mod verify;

use crate::base::config::file::LoadError;
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
  corelog consume clicks --group reports         share the topic with the group's other members
  corelog group describe reports                 how far a consumer group is, and who reads what
  corelog dump clicks-0/*.log --records          look into segment files
  corelog verify                                 check everything in ./corelog-data
  corelog bench e2e --rate 100000                latency from producer to consumer, under load
  corelog check                                  what of this machine's settings could be better
  corelog tune plan                              what of it corelog can change, and undo";

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
    /// Consumer groups: list, describe with their lag, reset their offsets, delete
    Group(Box<group::GroupArgs>),
    /// Print and check log files: segments, indexes, snapshots, checkpoints
    Dump(dump::DumpArgs),
    /// Check whole data directories, of Corelog or Apache Kafka, without changing anything
    Verify(verify::VerifyArgs),
    /// Measure any Kafka-compatible cluster under load: rates, latencies, CPU
    #[command(subcommand)]
    Bench(Box<bench::BenchCommand>),
    /// Look whether this machine is set up well: kernel, limits, disks, clocks, interrupts
    Check(check::CheckArgs),
    /// Change the machine's settings to what check wants, so that it can be undone
    Tune(tune::TuneArgs),
    /// Watch and steer the background reading for damage
    Scrub(scrub::ScrubArgs),
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
        Command::Group(args) => group::run(*args),
        Command::Dump(args) => dump::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Bench(command) => bench::run(*command),
        Command::Check(args) => check::run(&args),
        Command::Tune(args) => tune::run(args),
        Command::Scrub(args) => scrub::run(args),
        Command::Completions(args) => completions::run(args),
    };
    match done {
        Ok(code) => code,
        Err(error) if output::reader_has_gone(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            if is_wrong_usage(&error) { ExitCode::from(WRONG_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

/// The exit code of clap's own errors.
const WRONG_USAGE: u8 = 2;

/// Whether the error lies in what was asked for: arguments, an address or a setting that cannot be.
fn is_wrong_usage(error: &anyhow::Error) -> bool {
    error.is::<LoadError>()
        || error.is::<clap::Error>()
        || matches!(error.downcast_ref(), Some(ClientError::BadAddress { .. }))
}

/// The error and its causes in one line, each once: some repeat their cause in their own words.
fn in_one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string).filter(|cause| !cause.is_empty()) {
        if !line.contains(&cause) {
            let colon = if line.is_empty() { "" } else { ": " };
            line.push_str(&format!("{colon}{cause}"));
        }
    }
    line
}

/// Prints an error to stderr with what to do about it.
fn report(error: &anyhow::Error) {
    if let Some(usage) = error.downcast_ref::<clap::Error>() {
        // It says "error" itself. Nobody may be reading it.
        let _ = usage.print();
        return;
    }
    output::tell(format_args!("error: {}", in_one_line(error)));
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
    fn a_cause_is_told_once() {
        let cause = || std::io::Error::from_raw_os_error(99);
        let repeated = anyhow::Error::new(cause()).context(format!("cannot listen: {}", cause()));
        assert_eq!(in_one_line(&repeated.context("starting")), format!("starting: cannot listen: {}", cause()));
    }

    /// They came as far as the broker, or failed with the exit code of what was tried and went wrong.
    #[test]
    fn what_cannot_be_meant_is_wrong_usage() {
        for line in [
            "consume t -t never",
            "consume t -t -1",
            "consume t -p x",
            "produce t --timestamp foo",
            "produce t --linger -1",
            "topic alter t",
            "topic create t --partitions -1",
            "group describe",
            "group list --state foo",
            "group list --type new",
            "group reset-offsets g --topic t --by-duration 2",
            "group reset-offsets g --topic t --by-duration -2h",
            "group reset-offsets g --topic t --to-time 1763788800",
            "group remove-members g",
            "consume t --group=",
            "group reset-offsets g --topic t",
            "group reset-offsets g --topic t --to-offset -1",
            "group reset-offsets g --topic t:x --to-latest",
            "group reset-offsets g --topic t --to-latest --to-earliest",
            "consume t --group g -p 0",
            "consume t --assignor range",
            "serve --cores x",
            "serve --cores 1-0",
            "serve --log-level silly",
            "check --cores x",
            "tune",
            "tune plan --cores 3-1",
            "check --cores=",
        ] {
            let words = std::iter::once("corelog").chain(line.split(' '));
            let Err(error) = Cli::try_parse_from(words) else { panic!("{line} was taken") };
            let text = error.to_string();
            assert_eq!(error.exit_code(), i32::from(WRONG_USAGE), "{line}");
            assert!(!text.contains("tip:") && !text.contains("invalid digit"), "{line}: {text}");
        }
        let address = crate::client::address::HostPort::parse("localhost:99999").expect_err("no port");
        assert!(is_wrong_usage(&address.into()));
        let setting = LoadError { problems: vec!["num.partitions = x".into()] };
        assert!(is_wrong_usage(&setting.into()) && !is_wrong_usage(&anyhow::anyhow!("failed")));
        assert!(Cli::try_parse_from(["corelog", "topic", "alter", "t", "--set", "a=b", "--unset", "c"]).is_ok());
    }

    #[test]
    fn no_command_means_serve() {
        let cli = Cli::try_parse_from(["corelog", "--set", "broker.id=3", "--shards", "2"]).expect("valid arguments");
        assert!(cli.command.is_none());
        assert_eq!(cli.serve.set, ["broker.id=3".to_owned()].map(|s| s.parse().expect("key=value")));
        assert!(Cli::try_parse_from(["corelog", "--shards", "2", "topic", "list"]).is_err());
    }
}

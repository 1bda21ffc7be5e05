//! `corelog serve`: the broker.

use super::keyval::KeyValue;
use crate::base::logging;
use crate::node::cores;
use crate::node::serve::{ServeOptions, serve};
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug, Default)]
pub struct ServeArgs {
    /// Kafka's server.properties; names and defaults are Kafka's
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one property, over the file's value; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<KeyValue>,
    /// Brokers that this node consists of, fixed when the data directory is formatted [default: one per core, of those
    /// that --cores names at that start]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub shards: Option<u16>,
    /// Cores to run on: a number, or a list such as 0-3,8
    #[arg(long, value_name = "LIST|N")]
    pub cores: Option<cores::Choice>,
    /// Start without this data directory of the node, which is missing and lost for good with its records; its path or
    /// directory.id. Needed once; may be repeated
    #[arg(long, value_name = "DIR")]
    pub forget_dir: Vec<String>,
    /// What to log: error, warn, info, debug, trace, or per module (corelog::log=debug)
    #[arg(long, value_name = "LEVEL", env = "CORELOG_LOG", default_value = "info", value_parser = log_level)]
    pub log_level: String,
}

fn log_level(text: &str) -> Result<String, String> {
    logging::check(text).map(|()| text.to_owned())
}

/// Runs until the broker ends.
pub fn run(args: ServeArgs) -> anyhow::Result<()> {
    logging::init(Some(&args.log_level))?;
    serve(&ServeOptions {
        config: args.config,
        set: args.set.into_iter().map(|pair| (pair.key, pair.value)).collect(),
        shards: args.shards,
        cores: args.cores,
        forget_dirs: args.forget_dir,
    })
}

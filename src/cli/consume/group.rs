//! `corelog consume --group`: as a member of a consumer group.

use crate::cli::moment::parse_duration;
use crate::client::groups::MemberOptions;
use crate::client::groups::assign::Assignor;
use clap::{Args, ValueEnum};
use std::time::Duration;

#[derive(Args)]
pub struct GroupArgs {
    /// Join this consumer group: its members share the partitions, and what is printed is committed. -o then says where
    /// to begin in partitions of which nothing is committed
    #[arg(long, short = 'g', value_name = "GROUP", value_parser = parse_group, conflicts_with_all = ["partitions", "timestamp"])]
    pub group: Option<String>,
    /// How the group's leader shares partitions out; all members must offer one in common
    #[arg(long = "assignor", value_enum, value_name = "NAME,…", value_delimiter = ',', default_values = ["range", "roundrobin"], requires = "group")]
    assignors: Vec<AssignorArg>,
    /// How often what was printed is committed, besides at the end: who is killed has printed this much twice
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration, requires = "group")]
    pub commit_interval: Duration,
    /// Not heard of for so long, this member's partitions go to others
    #[arg(long, value_name = "DURATION", default_value = "45s", value_parser = parse_duration, requires = "group")]
    session_timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AssignorArg {
    Range,
    #[value(name = "roundrobin")]
    RoundRobin,
}

/// A rebalance waits for us so long: output that blocks longer costs the membership.
const REBALANCE: Duration = Duration::from_secs(60);
/// Kafka's `heartbeat.interval.ms`, and never more than a third of the session.
const HEARTBEAT_MAX: Duration = Duration::from_secs(3);

fn parse_group(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("a group needs a name".to_owned()) } else { Ok(text.to_owned()) }
}

impl GroupArgs {
    pub fn member(&self, topic: &str, group: &str) -> MemberOptions {
        let mut assignors: Vec<Assignor> = Vec::new();
        for assignor in &self.assignors {
            let assignor = match assignor {
                AssignorArg::Range => Assignor::Range,
                AssignorArg::RoundRobin => Assignor::RoundRobin,
            };
            if !assignors.contains(&assignor) {
                assignors.push(assignor);
            }
        }
        MemberOptions {
            group: group.to_owned(),
            topic: topic.to_owned(),
            assignors,
            session: self.session_timeout,
            rebalance: REBALANCE,
            heartbeat: HEARTBEAT_MAX.min(self.session_timeout / 3),
        }
    }
}

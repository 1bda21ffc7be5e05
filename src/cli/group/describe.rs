//! `corelog group describe`.

use super::{or_dash, scope};
use crate::cli::connect::ConnectArgs;
use crate::cli::output::{self, Table, show_ids};
use crate::client::cluster::Cluster;
use crate::client::error::ClientError;
use crate::client::groups::TopicPartitionName;
use crate::client::groups::admin::{self, Committed, GroupInfo, MemberInfo};
use crate::client::offsets::{Isolation, Lookup, list_offsets};
use clap::Args;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  corelog group describe reports              how far it has read of each partition, and who reads it
  corelog group describe --all-groups --state
  corelog group describe reports --members
  corelog group describe reports --json | jq '.[].lag'")]
pub struct DescribeArgs {
    #[arg(value_name = "GROUP", required_unless_present = "all_groups", conflicts_with = "all_groups")]
    groups: Vec<String>,
    /// All groups of the cluster
    #[arg(long)]
    all_groups: bool,
    /// A line for each member, with its partitions, instead of one for each partition
    #[arg(long, conflicts_with = "state")]
    members: bool,
    /// A line for each group: state, assignor, members, lag
    #[arg(long)]
    state: bool,
    /// Print everything as JSON
    #[arg(long, conflicts_with_all = ["members", "state"])]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub fn run(args: DescribeArgs) -> anyhow::Result<ExitCode> {
    let mut cluster = args.connect.connect()?;
    let (mut shown, mut errors) = (Vec::new(), Vec::new());
    for group in scope::groups(&mut cluster, &args.groups, args.all_groups)? {
        match Shown::of(&mut cluster, &group) {
            Ok(group) => shown.push(group),
            // It may have gone since it was listed.
            Err(error) if args.all_groups && admin::is_not_found(&error) => {}
            Err(error) => errors.push(error.into()),
        }
    }
    if args.json {
        output::json(&shown.iter().map(Shown::json).collect())?;
    } else if args.state {
        print_states(&shown)?;
    } else {
        for (at, group) in shown.iter().enumerate() {
            if at > 0 {
                output::line("")?;
            }
            group.print(args.members)?;
        }
    }
    super::end(errors)
}

/// A group with how far it is.
struct Shown {
    info: GroupInfo,
    coordinator: String,
    rows: Vec<Row>,
}

/// A partition of which the group has committed an offset, or that a member reads.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    of: TopicPartitionName,
    committed: Option<Committed>,
    /// None where the partition is gone.
    end: Option<i64>,
    /// Where the log begins, of partitions of which nothing is committed.
    begin: Option<i64>,
    /// Its place among the members.
    member: Option<usize>,
}

impl Row {
    /// Records that are there and have not been read.
    fn lag(&self) -> Option<i64> {
        Some((self.end? - self.committed.as_ref()?.offset).max(0))
    }

    /// Records of a partition of which nothing is committed.
    fn unplaced(&self) -> Option<i64> {
        match self.committed {
            None => Some((self.end? - self.begin?).max(0)),
            Some(_) => None,
        }
    }
}

/// How far behind a group is, over all its partitions.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lag {
    /// Records behind what is committed. None where nothing is: then nobody knows where the members will begin.
    records: Option<i64>,
    /// Partitions of which nothing is committed, and the records in them.
    uncommitted: (usize, i64),
}

impl Lag {
    fn of(rows: &[Row]) -> Lag {
        let uncommitted = rows.iter().filter(|row| row.committed.is_none() && row.end.is_some());
        let uncommitted = uncommitted.fold((0, 0), |(n, records), row| (n + 1, records + row.unplaced().unwrap_or(0)));
        let is_known = uncommitted.0 == 0 || rows.iter().any(|row| row.committed.is_some());
        Lag { records: is_known.then(|| rows.iter().filter_map(Row::lag).sum()), uncommitted }
    }

    fn uncommitted(&self) -> Option<String> {
        let (partitions, records) = self.uncommitted;
        let plural = |n: i64| if n == 1 { "" } else { "s" };
        let several = if partitions == 1 { "" } else { "s" };
        (partitions > 0)
            .then(|| format!("{partitions} partition{several} without a commit ({records} record{})", plural(records)))
    }
}

impl Shown {
    fn of(cluster: &mut Cluster, group: &str) -> Result<Shown, ClientError> {
        let info = admin::describe(cluster, group)?;
        let committed = admin::committed(cluster, group, None)?;
        let topics = committed.keys().map(|(topic, _)| topic.clone());
        let read = info.members.iter().flat_map(|member| member.assigned.keys().cloned());
        let existing = scope::existing(cluster, topics.chain(read))?;
        let assigned: BTreeSet<TopicPartitionName> = info.members.iter().flat_map(assigned).collect();
        let (mut begins, mut ends) = (BTreeMap::new(), BTreeMap::new());
        for (topic, partitions) in existing {
            let mut find = |partitions: &[i32], lookup, offsets: &mut BTreeMap<TopicPartitionName, i64>| {
                let found = list_offsets(cluster, &topic, partitions, lookup, Isolation::ReadUncommitted)?;
                offsets.extend(found.into_iter().filter_map(|(index, at)| Some(((topic.clone(), index), at?))));
                Ok::<(), ClientError>(())
            };
            find(&partitions, Lookup::Latest, &mut ends)?;
            let of = |index: i32| (topic.clone(), index);
            let is_new = |index: &i32| assigned.contains(&of(*index)) && !committed.contains_key(&of(*index));
            let new: Vec<i32> = partitions.iter().copied().filter(is_new).collect();
            if !new.is_empty() {
                find(&new, Lookup::Earliest, &mut begins)?;
            }
        }
        let address = cluster.known().brokers.get(&info.coordinator).map(|broker| format!(" ({})", broker.address));
        let coordinator = format!("{}{}", info.coordinator, address.unwrap_or_default());
        let rows = rows(&info.members, committed, &begins, &ends);
        Ok(Shown { info, coordinator, rows })
    }

    /// Of all partitions together.
    fn lag(&self) -> Lag {
        Lag::of(&self.rows)
    }

    fn print(&self, members: bool) -> anyhow::Result<()> {
        let info = &self.info;
        output::line(&info.group)?;
        let count = info.members.len();
        let plural = if count == 1 { "" } else { "s" };
        output::line(format_args!("  state        {}, {count} member{plural}", info.state))?;
        output::line(format_args!("  type         {}{}", info.kind, self.assignor()))?;
        output::line(format_args!("  coordinator  {}", self.coordinator))?;
        let lag = self.lag();
        let uncommitted = lag.uncommitted().map(|text| format!(", {text}")).unwrap_or_default();
        output::line(format_args!("  lag          {}{uncommitted}", or_dash(lag.records)))?;
        match members {
            true => self.members().print(2)?,
            false => self.partitions().print(2)?,
        }
        Ok(())
    }

    fn assignor(&self) -> String {
        match self.info.assignor.as_str() {
            "" => String::new(),
            assignor => format!(", assigned by {assignor}"),
        }
    }

    fn partitions(&self) -> Table {
        let mut table = Table::new(&["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER", "HOST", "CLIENT"]);
        let who = |member: Option<&MemberInfo>| match member {
            Some(member) => [member.member_id.clone(), member.host.clone(), member.client_id.clone()],
            None => ["-", "-", "-"].map(str::to_owned),
        };
        for row in &self.rows {
            let member = row.member.and_then(|at| self.info.members.get(at));
            let (topic, index) = &row.of;
            let committed = row.committed.as_ref().map(|committed| committed.offset);
            let cells =
                vec![topic.clone(), index.to_string(), or_dash(committed), or_dash(row.end), or_dash(row.lag())];
            table.row(cells.into_iter().chain(who(member)).collect());
        }
        for member in self.info.members.iter().filter(|member| member.assigned.is_empty()) {
            let cells = ["-"; 5].map(str::to_owned);
            table.row(cells.into_iter().chain(who(Some(member))).collect());
        }
        table
    }

    fn members(&self) -> Table {
        let mut table = Table::new(&["MEMBER", "INSTANCE", "HOST", "CLIENT", "PARTITIONS", "ASSIGNMENT"]);
        for member in &self.info.members {
            let assigned = member.assigned.iter().map(|(topic, indexes)| format!("{topic}:{}", show_ids(indexes)));
            table.row(vec![
                member.member_id.clone(),
                member.instance_id.clone().unwrap_or("-".to_owned()),
                member.host.clone(),
                member.client_id.clone(),
                member.assigned.values().map(Vec::len).sum::<usize>().to_string(),
                Some(assigned.collect::<Vec<_>>().join(" ")).filter(|text| !text.is_empty()).unwrap_or("-".to_owned()),
            ]);
        }
        table
    }

    fn json(&self) -> Value {
        let lag = self.lag();
        let member = |member: &MemberInfo| {
            json!({
                "member_id": member.member_id,
                "instance_id": member.instance_id,
                "client_id": member.client_id,
                "host": member.host,
                "partitions": member.assigned,
            })
        };
        let row = |row: &Row| {
            let committed = row.committed.as_ref();
            json!({
                "topic": row.of.0,
                "partition": row.of.1,
                "committed": committed.map(|committed| committed.offset),
                "leader_epoch": committed.and_then(|committed| committed.leader_epoch),
                "metadata": committed.map(|committed| &committed.metadata),
                "end": row.end,
                "lag": row.lag(),
                "member_id": row.member.and_then(|at| self.info.members.get(at)).map(|member| &member.member_id),
            })
        };
        json!({
            "group": self.info.group,
            "type": self.info.kind,
            "state": self.info.state,
            "protocol_type": self.info.protocol_type,
            "assignor": self.info.assignor,
            "coordinator": self.info.coordinator,
            "lag": lag.records,
            "uncommitted_partitions": lag.uncommitted.0,
            "uncommitted_records": lag.uncommitted.1,
            "members": self.info.members.iter().map(member).collect::<Vec<_>>(),
            "offsets": self.rows.iter().map(row).collect::<Vec<_>>(),
        })
    }
}

fn rows(
    members: &[MemberInfo],
    mut committed: BTreeMap<TopicPartitionName, Committed>,
    begins: &BTreeMap<TopicPartitionName, i64>,
    ends: &BTreeMap<TopicPartitionName, i64>,
) -> Vec<Row> {
    let mut owners: BTreeMap<TopicPartitionName, usize> = BTreeMap::new();
    for (at, member) in members.iter().enumerate() {
        owners.extend(assigned(member).map(|of| (of, at)));
    }
    let all: BTreeSet<TopicPartitionName> = committed.keys().chain(owners.keys()).cloned().collect();
    let row = |of: TopicPartitionName| Row {
        committed: committed.remove(&of),
        end: ends.get(&of).copied(),
        begin: begins.get(&of).copied(),
        member: owners.get(&of).copied(),
        of,
    };
    all.into_iter().map(row).collect()
}

fn assigned(member: &MemberInfo) -> impl Iterator<Item = TopicPartitionName> + '_ {
    member.assigned.iter().flat_map(|(topic, indexes)| indexes.iter().map(|index| (topic.clone(), *index)))
}

fn print_states(shown: &[Shown]) -> anyhow::Result<()> {
    let mut table = Table::new(&["GROUP", "TYPE", "STATE", "ASSIGNOR", "MEMBERS", "LAG", "COORDINATOR", "NOTE"]);
    for group in shown {
        let (info, lag) = (&group.info, group.lag());
        table.row(vec![
            info.group.clone(),
            info.kind.clone(),
            info.state.clone(),
            Some(info.assignor.clone()).filter(|name| !name.is_empty()).unwrap_or("-".to_owned()),
            info.members.len().to_string(),
            or_dash(lag.records),
            group.coordinator.clone(),
            lag.uncommitted().unwrap_or_default(),
        ]);
    }
    table.print(0)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_what_is_committed_and_what_is_read() {
        let of = |index: i32| ("t".to_owned(), index);
        let at = |offset| Committed { offset, leader_epoch: None, metadata: String::new() };
        let member = MemberInfo {
            member_id: "m".to_owned(),
            instance_id: None,
            client_id: "c".to_owned(),
            host: "h".to_owned(),
            assigned: BTreeMap::from([("t".to_owned(), vec![1, 2])]),
        };
        let committed = BTreeMap::from([(of(0), at(5)), (of(1), at(9)), (of(7), at(3))]);
        let ends = BTreeMap::from([(of(0), 8), (of(1), 4), (of(2), 6)]);
        let begins = BTreeMap::from([(of(2), 1)]);
        let rows = rows(&[member], committed, &begins, &ends);
        let told: Vec<_> = rows.iter().map(|row| (row.of.1, row.end, row.lag(), row.member)).collect();
        let expected = [
            (0, Some(8), Some(3), None),
            // Its log was cut, or its topic made anew, since.
            (1, Some(4), Some(0), Some(0)),
            (2, Some(6), None, Some(0)),
            (7, None, None, None),
        ];
        assert_eq!(told, expected);
        let lag = Lag::of(&rows);
        assert_eq!(lag, Lag { records: Some(3), uncommitted: (1, 5) });
        assert_eq!(lag.uncommitted().as_deref(), Some("1 partition without a commit (5 records)"));
    }

    /// Its members may begin anywhere: a lag of 0 would say that they have read everything.
    #[test]
    fn who_has_committed_nothing_has_no_lag() {
        let row = |index, end| Row {
            of: ("t".to_owned(), index),
            committed: None,
            end: Some(end),
            begin: Some(100),
            member: Some(0),
        };
        let lag = Lag::of(&[row(0, 400), row(1, 200)]);
        assert_eq!(lag, Lag { records: None, uncommitted: (2, 400) });
        assert_eq!(Lag::of(&[]), Lag { records: Some(0), uncommitted: (0, 0) });
    }
}

//! `corelog group reset-offsets`.

use super::failures::{Failures, has_members};
use super::or_dash;
use super::plan::{self, Known, Plan, Target};
use super::scope::{self, TopicScope, parse_topic};
use crate::cli::connect::ConnectArgs;
use crate::cli::moment::{now_ms, parse_duration_with_unit, parse_moment_now, show_moment};
use crate::cli::output::{self, Table};
use crate::client::cluster::Cluster;
use crate::client::error::{ClientError, code_name};
use crate::client::groups::TopicPartitionName;
use crate::client::groups::admin::{self, INACTIVE};
use crate::client::offsets::{Isolation, Lookup, list_offsets};
use anyhow::{Context, anyhow, bail};
use clap::error::ErrorKind;
use clap::{ArgGroup, Args};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Args)]
#[command(
    group(ArgGroup::new("target").required(true)),
    group(ArgGroup::new("scope").multiple(true)),
    after_help = "\
Examples:
  corelog group reset-offsets reports --topic clicks --to-earliest            shows the plan
  corelog group reset-offsets reports --topic clicks --to-earliest --execute  does it
  corelog group reset-offsets reports --all-topics --by-duration 2h --execute
  corelog group reset-offsets reports --topic clicks:0,3 --shift-by -100 --execute
  corelog group reset-offsets reports --all-topics --to-current --export > plan.csv
  corelog group reset-offsets reports --from-file plan.csv --execute

The group must have no members. Offsets that lie outside of a partition's log are moved to its begin or end."
)]
pub struct ResetArgs {
    #[arg(value_name = "GROUP", required_unless_present = "all_groups", conflicts_with = "all_groups")]
    groups: Vec<String>,
    /// All groups of the cluster
    #[arg(long)]
    all_groups: bool,
    /// A topic, or some of its partitions; may be repeated
    #[arg(long = "topic", value_name = "TOPIC[:P,…]", value_parser = parse_topic, group = "scope")]
    topics: Vec<TopicScope>,
    /// Every partition of which the group has committed an offset
    #[arg(long, group = "scope", conflicts_with = "topics")]
    all_topics: bool,
    /// To this offset
    #[arg(long, value_name = "OFFSET", group = "target", allow_negative_numbers = true, value_parser = parse_offset)]
    to_offset: Option<i64>,
    /// To the first record at or after this time: ms since 1970, a date such as 2024-05-01T12:00:00Z or 2024-05-01T14:00+02:00
    /// (UTC where there is no zone), or 2h (ago)
    #[arg(long, visible_alias = "to-datetime", value_name = "TIME", group = "target", allow_negative_numbers = true, value_parser = parse_moment_now)]
    to_time: Option<i64>,
    /// To the first record that is no older than this, with its unit: 90s, 30m, 2h, 7d, 1h30m, or PT2H
    #[arg(long, value_name = "DURATION", group = "target", allow_hyphen_values = true, value_parser = parse_duration_with_unit)]
    by_duration: Option<Duration>,
    /// To the begin of the log
    #[arg(long, group = "target")]
    to_earliest: bool,
    /// To the end of the log
    #[arg(long, group = "target")]
    to_latest: bool,
    /// To where the group is, to keep it: with --export, or to have an offset where none is committed
    #[arg(long, group = "target")]
    to_current: bool,
    /// So many records on, or back where negative
    #[arg(long, value_name = "N", group = "target", allow_negative_numbers = true)]
    shift_by: Option<i64>,
    /// To what a file says: topic,partition,offset a line, or group,topic,partition,offset for several groups
    #[arg(long, value_name = "FILE", group = "target", conflicts_with = "scope")]
    from_file: Option<PathBuf>,
    /// Do it; without it the plan is shown, and nothing changes
    #[arg(long, conflicts_with = "dry_run")]
    execute: bool,
    /// Show the plan and change nothing, which is what happens without --execute
    #[arg(long)]
    dry_run: bool,
    /// Print the plan as --from-file reads it
    #[arg(long, conflicts_with = "json")]
    export: bool,
    /// Print the plan, or what was done, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// A line of the plan.
struct Row {
    group: String,
    of: TopicPartitionName,
    committed: Option<i64>,
    end: i64,
    new: i64,
    note: Option<String>,
    error: Option<String>,
}

pub fn run(args: ResetArgs) -> anyhow::Result<ExitCode> {
    if args.from_file.is_none() && args.topics.is_empty() && !args.all_topics {
        let reason =
            "which partitions? Give --topic TOPIC[:P,…], or --all-topics for all that the group has committed\n";
        return Err(clap::Error::raw(ErrorKind::MissingRequiredArgument, reason).into());
    }
    let target = args.target();
    let mut cluster = args.connect.connect()?;
    let groups = scope::groups(&mut cluster, &args.groups, args.all_groups)?;
    let mut from_file = args.read_file(&groups)?;
    let (mut rows, mut errors) = (Vec::new(), Vec::new());
    for group in &groups {
        let wanted = from_file.as_mut().map(|plan| plan.remove(group).unwrap_or_default());
        match args.plan(&mut cluster, group, &target, wanted, &mut errors) {
            Ok(planned) => rows.extend(planned),
            Err(error) => errors.push(error),
        }
    }
    if args.execute {
        for group in &groups {
            let of_group: Vec<&mut Row> = rows.iter_mut().filter(|row| row.group == *group).collect();
            errors.extend(execute(&mut cluster, group, of_group));
        }
    }
    args.print(&target, &rows)?;
    if let Some(told) = told(args.execute, &rows) {
        output::tell(told);
    }
    super::end(errors)
}

impl ResetArgs {
    fn target(&self) -> Target {
        let ago = |duration: Duration| now_ms().saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX));
        match self {
            ResetArgs { to_offset: Some(offset), .. } => Target::Offset(*offset),
            ResetArgs { shift_by: Some(by), .. } => Target::Shift(*by),
            ResetArgs { to_time: Some(ms), .. } => Target::Time(*ms),
            ResetArgs { by_duration: Some(duration), .. } => Target::Time(ago(*duration).max(0)),
            ResetArgs { to_earliest: true, .. } => Target::Earliest,
            ResetArgs { to_latest: true, .. } => Target::Latest,
            // With a file each partition has a target of its own.
            _ => Target::Current,
        }
    }

    fn read_file(&self, groups: &[String]) -> anyhow::Result<Option<Plan>> {
        let Some(path) = &self.from_file else { return Ok(None) };
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        plan::parse(&text, groups).map(Some).map_err(|reason| anyhow!("{}: {reason}", path.display()))
    }

    /// What the reset means for a group's partitions; errors of single partitions go to `errors`.
    fn plan(
        &self,
        cluster: &mut Cluster,
        group: &str,
        target: &Target,
        wanted: Option<BTreeMap<TopicPartitionName, i64>>,
        errors: &mut Vec<anyhow::Error>,
    ) -> anyhow::Result<Vec<Row>> {
        let exists = check_inactive(cluster, group)?;
        let committed = admin::committed(cluster, group, None)?;
        if self.all_topics && committed.is_empty() {
            let what = if exists { "has committed nothing yet" } else { "does not exist" };
            // Of all groups, those that have something to reset are meant.
            if self.all_groups {
                return Ok(Vec::new());
            }
            bail!("group {group} {what}: name its topics, with --topic, to have it begin there");
        }
        let partitions: BTreeSet<TopicPartitionName> = match &wanted {
            Some(wanted) => wanted.keys().cloned().collect(),
            None if self.all_topics => committed.keys().cloned().collect(),
            None => scope::partitions(cluster, &self.topics)?,
        };
        let known = known(cluster, &partitions, target)?;
        let mut rows = Vec::new();
        for of in partitions {
            let Some(known) = known.get(&of) else {
                errors.push(anyhow!("group {group}: {}-{} does not exist", of.0, of.1));
                continue;
            };
            let known = Known { committed: committed.get(&of).map(|committed| committed.offset), ..*known };
            let own = wanted.as_ref().and_then(|wanted| wanted.get(&of)).map(|offset| Target::Offset(*offset));
            match own.as_ref().unwrap_or(target).place(&known) {
                Ok(place) => rows.push(Row {
                    group: group.to_owned(),
                    of,
                    committed: known.committed,
                    end: known.end,
                    new: place.offset,
                    note: place.note,
                    error: None,
                }),
                Err(reason) => errors.push(anyhow!("group {group}: {}-{}: {reason}", of.0, of.1)),
            }
        }
        if !exists && !rows.is_empty() {
            let makes = if self.execute { "this makes it" } else { "--execute makes it" };
            output::tell(format_args!("note: group {group} does not exist: {makes}"));
        }
        Ok(rows)
    }

    fn print(&self, target: &Target, rows: &[Row]) -> anyhow::Result<()> {
        let time = match target {
            Target::Time(ms) => show_moment(*ms),
            _ => None,
        };
        if self.export {
            let mut plan = Plan::new();
            for row in rows {
                plan.entry(row.group.clone()).or_default().insert(row.of.clone(), row.new);
            }
            return Ok(plan::export(&plan).iter().try_for_each(output::line)?);
        }
        if self.json {
            let row = |row: &Row| {
                serde_json::json!({
                    "group": row.group,
                    "topic": row.of.0,
                    "partition": row.of.1,
                    "committed": row.committed,
                    "new": row.new,
                    "time": time,
                    "end": row.end,
                    "note": row.note,
                    "executed": self.execute && row.error.is_none(),
                    "error": row.error,
                })
            };
            return Ok(output::json(&rows.iter().map(row).collect())?);
        }
        if rows.is_empty() {
            return Ok(());
        }
        if let Some(time) = time {
            output::line(format_args!("to the first record at or after {time} (UTC), {}", ago(target)))?;
        }
        let mut table = Table::new(&["GROUP", "TOPIC", "PARTITION", "COMMITTED", "NEW", "LAG", "NOTE"]);
        for row in rows {
            let note = row.error.clone().or(row.note.clone()).unwrap_or_default();
            let lag = (row.end - row.new).max(0).to_string();
            let (topic, index) = row.of.clone();
            let cells =
                [row.group.clone(), topic, index.to_string(), or_dash(row.committed), row.new.to_string(), lag, note];
            table.row(cells.into());
        }
        Ok(table.print(0)?)
    }
}

/// What became of the plan, for who reads the table.
fn told(execute: bool, rows: &[Row]) -> Option<String> {
    if rows.is_empty() {
        return None;
    }
    if !execute {
        return Some("nothing is changed yet: --execute does it".to_owned());
    }
    let done = rows.iter().filter(|row| row.error.is_none()).count();
    let plural = if rows.len() == 1 { "" } else { "s" };
    Some(match done == rows.len() {
        true => format!("done: {done} offset{plural} set"),
        false => format!("{done} of {} offset{plural} set", rows.len()),
    })
}

/// As Kafka has it: while members read, they would commit over whatever is set here. Whether the group exists.
fn check_inactive(cluster: &mut Cluster, group: &str) -> anyhow::Result<bool> {
    match admin::describe(cluster, group) {
        Ok(info) if INACTIVE.contains(&info.state.as_str()) => Ok(true),
        Ok(info) => bail!("group {group} cannot be reset: it is {}; {}", info.state, has_members(&info)),
        // It begins with these offsets.
        Err(error) if admin::is_not_found(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What the logs say of these partitions, of those that exist.
fn known(
    cluster: &mut Cluster,
    partitions: &BTreeSet<TopicPartitionName>,
    target: &Target,
) -> Result<BTreeMap<TopicPartitionName, Known>, ClientError> {
    let existing = scope::existing(cluster, partitions.iter().map(|(topic, _)| topic.clone()))?;
    let mut known = BTreeMap::new();
    for (topic, there) in existing {
        let wanted: Vec<i32> =
            there.into_iter().filter(|index| partitions.contains(&(topic.clone(), *index))).collect();
        let mut find = |lookup| list_offsets(cluster, &topic, &wanted, lookup, Isolation::ReadUncommitted);
        let (begins, ends) = (find(Lookup::Earliest)?, find(Lookup::Latest)?);
        let by_time = match target {
            Target::Time(ms) => find(Lookup::Timestamp(*ms))?,
            _ => BTreeMap::new(),
        };
        let at = |offsets: &BTreeMap<i32, Option<i64>>, index: i32| offsets.get(&index).copied().flatten();
        for index in wanted {
            let (begin, end) = (at(&begins, index).unwrap_or(0), at(&ends, index).unwrap_or(0));
            let by_time = at(&by_time, index);
            known.insert((topic.clone(), index), Known { committed: None, begin, end, by_time });
        }
    }
    Ok(known)
}

/// Commits a group's plan; each row learns of its error.
fn execute(cluster: &mut Cluster, group: &str, rows: Vec<&mut Row>) -> Vec<anyhow::Error> {
    if rows.is_empty() {
        return Vec::new();
    }
    let offsets = rows.iter().map(|row| (row.of.clone(), row.new)).collect();
    let mut outcomes = match admin::alter_offsets(cluster, group, &offsets) {
        Ok(outcomes) => outcomes,
        Err(error) => {
            rows.into_iter().for_each(|row| row.error = Some(error.to_string()));
            return vec![error.into()];
        }
    };
    let mut failures = Failures::default();
    for row in rows {
        match outcomes.remove(&row.of) {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                row.error = Some(error.code().map_or_else(|| error.to_string(), code_name));
                failures.add(&row.of, error);
            }
            None => {
                let reason = "the broker's answer leaves it out";
                failures.add(&row.of, ClientError::Invalid(reason.to_owned()));
                row.error = Some(reason.to_owned());
            }
        }
    }
    failures.errors(&format!("commit for group {group}"))
}

/// How long ago a target lies, to the two largest units.
fn ago(target: &Target) -> String {
    let Target::Time(ms) = target else { return String::new() };
    show_ago(now_ms().saturating_sub(*ms) / 1000)
}

fn show_ago(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match seconds {
        ..0 => "which is still to come".to_owned(),
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h {minutes} min ago", seconds / 3600),
        _ => format!("{days} days {hours} h ago"),
    }
}

fn parse_offset(text: &str) -> Result<i64, String> {
    text.parse().ok().filter(|offset| *offset >= 0).ok_or_else(|| "give an offset as a number from 0 on".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_and_what_was_done_are_told_apart() {
        let row = |error: Option<&str>| Row {
            group: "g".to_owned(),
            of: ("t".to_owned(), 0),
            committed: None,
            end: 9,
            new: 3,
            note: None,
            error: error.map(str::to_owned),
        };
        let told = |execute, rows: &[Row]| told(execute, rows).unwrap_or_default();
        assert_eq!(told(false, &[row(None)]), "nothing is changed yet: --execute does it");
        assert_eq!(told(true, &[row(None)]), "done: 1 offset set");
        assert_eq!(told(true, &[row(None), row(Some("NOT_COORDINATOR"))]), "1 of 2 offsets set");
        assert_eq!(told(true, &[]), "");
    }

    #[test]
    fn how_long_ago_is_told_as_people_count() {
        let told = [-1, 5, 7199, 7200, 90_000, 200_000].map(show_ago);
        let expected =
            ["which is still to come", "5 s ago", "119 min ago", "2 h 0 min ago", "25 h 0 min ago", "2 days 7 h ago"];
        assert_eq!(told, expected);
    }
}

//! Where a group shall read on: what a reset means for one partition, and plans kept in files. Pure.

use crate::client::groups::TopicPartitionName;
use std::collections::BTreeMap;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Offset(i64),
    /// So many records on, or back where negative.
    Shift(i64),
    Earliest,
    Latest,
    /// Where it is; at the end where it is nowhere.
    Current,
    /// The first record at or after this time, in ms since 1970; at the end if there is none.
    Time(i64),
}

/// What is known of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub committed: Option<i64>,
    /// The log's first offset.
    pub begin: i64,
    /// The offset behind its last record.
    pub end: i64,
    /// The first record at or after the target's time.
    pub by_time: Option<i64>,
}

/// Where to, and why not quite where it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub offset: i64,
    pub note: Option<String>,
}

impl Target {
    /// The new offset of a partition; never outside of its log, as with Kafka's tool.
    pub fn place(&self, known: &Known) -> Result<Place, String> {
        let exactly = |offset| Ok(Place { offset, note: None });
        match self {
            Target::Earliest => exactly(known.begin),
            Target::Latest => exactly(known.end),
            Target::Offset(offset) => Ok(within(*offset, known)),
            Target::Shift(by) => match known.committed {
                Some(committed) => Ok(within(committed.saturating_add(*by), known)),
                None => Err("nothing is committed that could be shifted".to_owned()),
            },
            Target::Current => match known.committed {
                Some(committed) => exactly(committed),
                None => Ok(Place { offset: known.end, note: Some("nothing is committed: the end".to_owned()) }),
            },
            Target::Time(_) => match known.by_time {
                Some(offset) => exactly(offset),
                None => Ok(Place { offset: known.end, note: Some("no record is that young: the end".to_owned()) }),
            },
        }
    }
}

fn within(offset: i64, known: &Known) -> Place {
    let note = if offset < known.begin {
        Some(format!("{offset} lies before the log's begin"))
    } else if offset > known.end {
        Some(format!("{offset} lies behind the log's end"))
    } else {
        None
    };
    Place { offset: offset.clamp(known.begin, known.end.max(known.begin)), note }
}

/// Offsets by group and partition.
pub type Plan = BTreeMap<String, BTreeMap<TopicPartitionName, i64>>;

/// Reads a plan as Kafka's tool exports it: `topic,partition,offset` a line for one group, or `group,topic,partition,offset`.
pub fn parse(text: &str, groups: &[String]) -> Result<Plan, String> {
    let mut plan = Plan::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |reason: &str| format!("line {}: {reason}: '{line}'", at + 1);
        let cells = cells(line).ok_or_else(|| wrong("a quote is not closed"))?;
        let (group, rest) = match (cells.as_slice(), groups) {
            ([topic, partition, offset], [group]) => (group, [topic, partition, offset]),
            ([_, _, _], _) => return Err(wrong("several groups need group,topic,partition,offset")),
            ([group, topic, partition, offset], _) => (group, [topic, partition, offset]),
            _ => return Err(wrong("neither topic,partition,offset nor group,topic,partition,offset")),
        };
        if !groups.contains(group) {
            return Err(wrong("a group that was not named"));
        }
        let [topic, partition, offset] = rest;
        let partition = partition.parse::<i32>().ok().filter(|index| *index >= 0);
        let offset = offset.parse::<i64>().ok().filter(|offset| *offset >= 0);
        let (Some(partition), Some(offset)) = (partition, offset) else {
            return Err(wrong("partition and offset are numbers from 0 on"));
        };
        plan.entry(group.clone()).or_default().insert((topic.clone(), partition), offset);
    }
    Ok(plan)
}

/// A plan as `parse` reads it; with the group's name only if there are several, as Kafka's tool has it.
pub fn export(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for (group, offsets) in plan {
        let group = match plan.len() {
            1 => String::new(),
            _ => format!("{},", quoted(group)),
        };
        lines.extend(offsets.iter().map(|((topic, index), offset)| format!("{group}{topic},{index},{offset}")));
    }
    lines
}

/// Group names are free, topics' names are not.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) || text.trim() != text {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

fn cells(line: &str) -> Option<Vec<String>> {
    let mut cells = Vec::new();
    let mut rest = line;
    loop {
        let (cell, after) = match rest.strip_prefix('"') {
            Some(inside) => quoted_cell(inside)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim().to_owned(), &rest[end..])
            }
        };
        cells.push(cell);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return after.trim().is_empty().then_some(cells),
        }
    }
}

fn quoted_cell(inside: &str) -> Option<(String, &str)> {
    let mut cell = String::new();
    let mut rest = inside;
    loop {
        let (text, after) = rest.split_once('"')?;
        cell.push_str(text);
        match after.strip_prefix('"') {
            Some(next) => {
                cell.push('"');
                rest = next;
            }
            None => return Some((cell, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: Known = Known { committed: Some(50), begin: 10, end: 100, by_time: Some(70) };

    fn offset(target: Target, known: &Known) -> Result<(i64, bool), String> {
        target.place(known).map(|place| (place.offset, place.note.is_some()))
    }

    #[test]
    fn each_way_to_reset_is_kafkas() {
        assert_eq!(offset(Target::Earliest, &KNOWN), Ok((10, false)));
        assert_eq!(offset(Target::Latest, &KNOWN), Ok((100, false)));
        assert_eq!(offset(Target::Current, &KNOWN), Ok((50, false)));
        assert_eq!(offset(Target::Time(1), &KNOWN), Ok((70, false)));
        assert_eq!(offset(Target::Offset(99), &KNOWN), Ok((99, false)));
        assert_eq!(offset(Target::Offset(9), &KNOWN), Ok((10, true)), "before the begin");
        assert_eq!(offset(Target::Offset(101), &KNOWN), Ok((100, true)), "behind the end");
        assert_eq!(offset(Target::Shift(-20), &KNOWN), Ok((30, false)));
        assert_eq!(offset(Target::Shift(i64::MAX), &KNOWN), Ok((100, true)));
        assert_eq!(offset(Target::Shift(i64::MIN), &KNOWN), Ok((10, true)));
        let fresh = Known { committed: None, by_time: None, ..KNOWN };
        assert!(offset(Target::Shift(1), &fresh).is_err(), "there is nothing to shift");
        assert_eq!(offset(Target::Current, &fresh), Ok((100, true)));
        assert_eq!(offset(Target::Time(1), &fresh), Ok((100, true)), "no record is that young");
    }

    #[test]
    fn plans_are_read_in_both_forms() {
        let groups = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let one = parse("t,0,5\n\nt,1,6\r\n", &groups(&["g"])).expect("a plan");
        assert_eq!(
            one["g"].iter().map(|((t, p), o)| (t.as_str(), *p, *o)).collect::<Vec<_>>(),
            [("t", 0, 5), ("t", 1, 6)]
        );
        let two = parse("g,t,0,5\n\"h, \"\"i\"\"\",u,1,6", &groups(&["g", "h, \"i\""])).expect("a plan");
        assert_eq!(two["h, \"i\""][&("u".to_owned(), 1)], 6);
        for (wrong, named) in [
            ("t,0,5", vec!["g", "h"]),
            ("x,t,0,5", vec!["g"]),
            ("t,0", vec!["g"]),
            ("t,-1,5", vec!["g"]),
            ("t,0,x", vec!["g"]),
            ("\"g,t,0,5", vec!["g"]),
            ("\"g\"x,t,0,5", vec!["g"]),
        ] {
            assert!(parse(wrong, &groups(&named)).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_exported_is_read_again(
            groups in prop::collection::btree_map("[ -~]{1,8}",
                prop::collection::btree_map(("[a-z]{1,4}", 0..9i32), 0..99i64, 1..4), 1..4),
        ) {
            let names: Vec<String> = groups.keys().cloned().collect();
            prop_assert_eq!(parse(&export(&groups).join("\n"), &names), Ok(groups));
        }

        #[test]
        fn a_new_offset_lies_within_the_log(asked in any::<i64>(), shift in any::<bool>(), begin in 0..50i64, more in 0..50i64) {
            let known = Known { committed: Some(begin), begin, end: begin + more, by_time: None };
            let target = if shift { Target::Shift(asked) } else { Target::Offset(asked) };
            let place = target.place(&known).expect("something is committed");
            prop_assert!((begin..=begin + more).contains(&place.offset));
        }
    }
}

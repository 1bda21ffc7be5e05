//! Judges the facts: what is as it should be, what could be better, and what keeps a node from working. Pure.

mod cpus;
mod process;
mod storage;

use super::cpus::Cpus;
use super::facts::{Facts, Reading};
use super::items::{Action, ITEMS, Id, Item, item};
use super::place::{self, Placement};
use super::sysctl::{Judged, judge};
use std::fmt;

pub(super) use cpus::{SLOW_CLOCKS, flows_of_a_queue, served_badly};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Pass,
    /// This machine does not have it, or it does not matter here.
    NotApplicable,
    /// It works, and could work better, or more safely; or it cannot be told.
    Warn,
    /// A node does not start, or loses what it promised.
    Fail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Pass => "pass",
            Verdict::NotApplicable => "n/a",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        })
    }
}

/// What was found about one item, or about one disk, card or directory of it.
#[derive(Clone, Debug)]
pub struct Line {
    pub item: &'static Item,
    /// The disk, card or directory; empty where there is only one thing.
    pub subject: String,
    pub verdict: Verdict,
    pub current: String,
    /// How to get what is wanted; empty where it is there.
    pub fix: String,
}

/// Judges everything, in the order of the table of items.
pub fn check(facts: &Facts, placement: &Placement) -> Vec<Line> {
    let mut lines = Lines::default();
    process::check(facts, &mut lines);
    storage::check(facts, &mut lines);
    cpus::check(facts, placement, &mut lines);
    for item in ITEMS {
        if let Action::Sysctl(rule) = item.action {
            let name = item.reads.trim_start_matches("/proc/sys/").replace('/', ".");
            match judge(item.reads, rule, facts) {
                Judged::Good { current } => lines.pass(item.id, "", current),
                Judged::Change { current, path, value, .. } => {
                    let name =
                        if path == item.reads { name } else { path.trim_start_matches("/proc/sys/").replace('/', ".") };
                    lines.warn(item.id, "", current, format!("corelog tune apply, or sysctl -w {name}=\"{value}\""));
                }
                Judged::Absent => lines.not_applicable(item.id, "", "this kernel does not have it"),
                Judged::Unknown(why) => lines.unknown(item.id, "", &why),
            }
        }
    }
    lines.0.sort_by_key(|line| line.item.id);
    lines.0
}

/// Who serves interrupts: beside the CPUs that were chosen for shards, else beside running nodes, else by the rule.
pub fn placement(facts: &Facts, cores: Option<&Cpus>) -> Placement {
    let mut pinned = cores.cloned().unwrap_or_default();
    if cores.is_none() {
        pinned.extend(facts.nodes.iter().flat_map(|(_, cpus)| cpus.iter()));
    }
    match pinned.is_empty() {
        true => place::by_rule(&facts.cpus),
        false => place::beside(&facts.cpus, &pinned),
    }
}

/// Lines under construction.
#[derive(Default)]
struct Lines(Vec<Line>);

impl Lines {
    fn push(&mut self, id: Id, subject: &str, verdict: Verdict, current: impl Into<String>, fix: impl Into<String>) {
        let (current, fix) = (current.into(), fix.into());
        self.0.push(Line { item: item(id), subject: subject.to_owned(), verdict, current, fix });
    }

    fn pass(&mut self, id: Id, subject: &str, current: impl Into<String>) {
        self.push(id, subject, Verdict::Pass, current, "");
    }

    fn warn(&mut self, id: Id, subject: &str, current: impl Into<String>, fix: impl Into<String>) {
        self.push(id, subject, Verdict::Warn, current, fix);
    }

    fn fail(&mut self, id: Id, subject: &str, current: impl Into<String>, fix: impl Into<String>) {
        self.push(id, subject, Verdict::Fail, current, fix);
    }

    fn not_applicable(&mut self, id: Id, subject: &str, why: impl Into<String>) {
        self.push(id, subject, Verdict::NotApplicable, why, "");
    }

    fn unknown(&mut self, id: Id, subject: &str, why: &str) {
        self.warn(id, subject, format!("unknown: {why}"), format!("look at {}", item(id).reads));
    }

    /// The value, if there is one; else the line that says why not.
    fn known<'a, T>(&mut self, id: Id, subject: &str, reading: &'a Reading<T>) -> Option<&'a T> {
        match reading {
            Reading::Known(value) => return Some(value),
            Reading::Absent => self.not_applicable(id, subject, "this machine does not tell"),
            Reading::Unknown(why) => self.unknown(id, subject, why),
        }
        None
    }
}

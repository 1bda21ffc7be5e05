//! Collects the differences, sorts out the allowed ones, and tells the rest.

use crate::allowed::{ALLOWED, Allowed};
use crate::diff::FieldDifference;
use crate::tree::Tree;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Characters of a request or an answer that are printed unless all is asked for.
const TOLD_MAX: usize = 1_500;

/// One request and its two answers.
pub struct Exchange {
    pub case: String,
    pub api: String,
    pub version: i16,
    pub requests: [String; 2],
    /// Normalised.
    pub answers: [Tree; 2],
}

/// Differences of one kind: the same case, API and field. The first is told whole, of the others the versions.
struct Group {
    case: String,
    api: String,
    path: String,
    /// Both values, and the exchange.
    first: [String; 3],
    versions: BTreeSet<i16>,
}

pub struct Report {
    names: [&'static str; 2],
    /// Off when both brokers are Kafka: then nothing may differ.
    allow: bool,
    /// Print a line for every difference as it is found.
    every: bool,
    /// Print the exchanges whose requests contain this.
    trace: Option<String>,
    exchanges: usize,
    by_api: BTreeMap<String, (usize, BTreeSet<i16>)>,
    allowed: usize,
    used: HashSet<usize>,
    /// In the order in which they came.
    groups: Vec<Group>,
    last_failed: bool,
    last_differed: bool,
}

impl Report {
    pub fn new(names: [&'static str; 2], allow: bool, every: bool, trace: Option<String>) -> Report {
        Report {
            names,
            allow,
            every,
            trace,
            exchanges: 0,
            by_api: BTreeMap::new(),
            allowed: 0,
            used: HashSet::new(),
            groups: Vec::new(),
            last_failed: false,
            last_differed: false,
        }
    }

    pub fn add(&mut self, exchange: Exchange, differences: Vec<FieldDifference>) {
        self.exchanges += 1;
        let (count, versions) = self.by_api.entry(exchange.api.clone()).or_default();
        *count += 1;
        versions.insert(exchange.version);
        if self.trace.as_ref().is_some_and(|text| exchange.requests[1].contains(text)) {
            let Exchange { case, api, version, requests, answers } = &exchange;
            println!("{case} {api} v{version} {}\n    {}\n    {}", requests[1], answers[0], answers[1]);
        }
        self.last_failed = false;
        self.last_differed = !differences.is_empty();
        for difference in differences {
            let allowing = ALLOWED.iter().position(|rule| rule.allows(&exchange, &difference));
            if let (Some(rule), true) = (allowing, self.allow) {
                self.allowed += 1;
                self.used.insert(rule);
                continue;
            }
            if self.every {
                let FieldDifference { path, oracle, subject } = &difference;
                println!("{} {} v{} {path}: {oracle} | {subject}", exchange.case, exchange.api, exchange.version);
            }
            self.last_failed = true;
            let path = generic(&difference.path);
            let case = family(&exchange.case);
            let same = |group: &&mut Group| group.case == case && group.api == exchange.api && group.path == path;
            if let Some(group) = self.groups.iter_mut().find(same) {
                group.versions.insert(exchange.version);
                continue;
            }
            let told = self.names.iter().enumerate().map(|(index, name)| {
                let (request, answer) = (&exchange.requests[index], &exchange.answers[index]);
                format!("    {name} was asked {request}\n    {name} answered  {answer}\n")
            });
            self.groups.push(Group {
                first: [
                    difference.oracle,
                    difference.subject,
                    format!("    in {}\n{}", exchange.case, told.collect::<String>()),
                ],
                case: case.to_owned(),
                api: exchange.api.clone(),
                path,
                versions: [exchange.version].into(),
            });
        }
    }

    /// How many requests have been compared.
    pub fn exchanges(&self) -> usize {
        self.exchanges
    }

    /// A failure that is no difference of fields, such as a broker that is gone.
    pub fn fail(&mut self, case: &str, what: String) {
        self.groups.push(Group {
            case: case.to_owned(),
            api: "script".to_owned(),
            path: String::new(),
            first: [what, String::new(), String::new()],
            versions: BTreeSet::new(),
        });
    }

    /// Whether the last exchange differed: generated sequences end there, as what follows would differ as well.
    pub fn last_failed(&self) -> bool {
        self.last_failed
    }

    /// Whether the last exchange differed at all, allowed or not: the brokers may hold different records then.
    pub fn last_differed(&self) -> bool {
        self.last_differed
    }

    /// Prints everything; true if nothing differed but what is allowed.
    pub fn finish(&self, whole: bool) -> bool {
        let [oracle, subject] = self.names;
        for Group { case, api, path, first: [left, right, told], versions } in &self.groups {
            println!("DIFFERS {case}: {api} in {} {path}", named(versions));
            println!("    {oracle}: {left}\n    {subject}: {right}");
            for line in told.lines() {
                let cut = line.char_indices().nth(TOLD_MAX).filter(|_| !whole).map_or(line.len(), |(at, _)| at);
                println!("{}{}", &line[..cut], if cut < line.len() { "… (--whole shows all)" } else { "" });
            }
        }
        for (api, (count, versions)) in &self.by_api {
            println!("{api}: {count} exchanges in {}", named(versions));
        }
        println!(
            "{} exchanges with {oracle} and {subject}: {} kinds of difference, {} allowed ones",
            self.exchanges,
            self.groups.len(),
            self.allowed
        );
        self.groups.is_empty()
    }

    /// Allowed differences that did not occur: each is a rule to be removed, or a case that is missing.
    pub fn unused(&self) -> impl Iterator<Item = &'static Allowed> {
        ALLOWED.iter().enumerate().filter(|(index, _)| !self.used.contains(index)).map(|(_, rule)| rule)
    }
}

fn named(versions: &BTreeSet<i16>) -> String {
    match (versions.first(), versions.last()) {
        (Some(low), Some(high)) if low == high => format!("v{low}"),
        (Some(low), Some(high)) => format!("v{low}-{high}"),
        _ => "no version".to_owned(),
    }
}

/// The case's name; of generated ones the first stands for all.
fn family(case: &str) -> &str {
    if case.starts_with("generated-") { "generated" } else { case }
}

/// The path without its indices.
fn generic(path: &str) -> String {
    let mut out = String::new();
    let mut depth = 0;
    for char in path.chars() {
        match char {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ if depth == 0 => out.push(char),
            _ => {}
        }
        if char == ']' && depth == 0 {
            out.push_str("[]");
        }
    }
    out
}

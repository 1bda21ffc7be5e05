//! Collects the differences, sorts out the allowed ones, and tells the rest.

use crate::allowed::{ALLOWED, Allowed};
use crate::diff::FieldDifference;
use crate::tree::Tree;
use std::collections::{BTreeMap, HashSet};

/// One request and its two answers.
pub struct Exchange {
    pub case: String,
    pub api: String,
    pub version: i16,
    pub requests: [String; 2],
    /// Normalised.
    pub answers: [Tree; 2],
}

/// Differences of one kind: the same API, field and values. The first is shown whole, the others are counted.
struct Group {
    first: String,
    seen: Vec<String>,
}

pub struct Report {
    names: [&'static str; 2],
    /// Off when both brokers are Kafka: then nothing may differ.
    allow: bool,
    exchanges: usize,
    by_api: BTreeMap<String, (usize, HashSet<i16>)>,
    allowed: usize,
    used: HashSet<usize>,
    groups: BTreeMap<(String, String, String, String), Group>,
    last_failed: bool,
}

impl Report {
    pub fn new(names: [&'static str; 2], allow: bool) -> Report {
        Report {
            names,
            allow,
            exchanges: 0,
            by_api: BTreeMap::new(),
            allowed: 0,
            used: HashSet::new(),
            groups: BTreeMap::new(),
            last_failed: false,
        }
    }

    pub fn add(&mut self, exchange: Exchange, differences: Vec<FieldDifference>) {
        self.exchanges += 1;
        let (count, versions) = self.by_api.entry(exchange.api.clone()).or_default();
        *count += 1;
        versions.insert(exchange.version);
        self.last_failed = false;
        for difference in differences {
            let allowing = ALLOWED.iter().position(|rule| rule.allows(&exchange, &difference));
            if let (Some(rule), true) = (allowing, self.allow) {
                self.allowed += 1;
                self.used.insert(rule);
                continue;
            }
            self.last_failed = true;
            let kind = (
                exchange.api.clone(),
                generic(&difference.path),
                difference.oracle.clone(),
                difference.subject.clone(),
            );
            let place = format!("{} v{}", exchange.case, exchange.version);
            let group = self.groups.entry(kind).or_insert_with(|| Group {
                first: self
                    .names
                    .iter()
                    .enumerate()
                    .map(|(index, name)| {
                        format!(
                            "    {name} was asked {}\n    {name} answered  {}\n",
                            exchange.requests[index], exchange.answers[index]
                        )
                    })
                    .collect(),
                seen: Vec::new(),
            });
            group.seen.push(place);
        }
    }

    /// A failure that is no difference of fields, such as a broker that is gone.
    pub fn fail(&mut self, case: &str, what: String) {
        self.groups.insert(
            (case.to_owned(), String::new(), what, String::new()),
            Group { first: String::new(), seen: vec![case.to_owned()] },
        );
    }

    /// Whether the last exchange differed: generated sequences end there, as what follows would differ as well.
    pub fn last_failed(&self) -> bool {
        self.last_failed
    }

    /// Prints everything; true if nothing differed but what is allowed.
    pub fn finish(&self, whole: bool) -> bool {
        let [oracle, subject] = self.names;
        for ((api, path, left, right), group) in &self.groups {
            println!("DIFFERS {api} {path}\n    {oracle}: {left}\n    {subject}: {right}");
            let mut places = group.seen.clone();
            places.dedup();
            let more = places.len().saturating_sub(12);
            places.truncate(12);
            println!(
                "    in {} exchanges: {}{}",
                group.seen.len(),
                places.join(", "),
                if more > 0 { ", …" } else { "" }
            );
            for line in group.first.lines() {
                let cut = line.char_indices().nth(1_500).filter(|_| !whole).map_or(line.len(), |(at, _)| at);
                println!("{}{}", &line[..cut], if cut < line.len() { "… (--whole shows all)" } else { "" });
            }
        }
        for (api, (count, versions)) in &self.by_api {
            let (low, high) = (versions.iter().min(), versions.iter().max());
            println!("{api}: {count} exchanges in v{}-{}", low.unwrap_or(&-1), high.unwrap_or(&-1));
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

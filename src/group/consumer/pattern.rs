//! Patterns that members subscribe to, held against the names of topics. Pure.
//!
//! Looking may take long (a pattern of 29 characters that counts to 1000 took more than ten seconds for 10,000 names), so whoever serves
//! requests has it done elsewhere, and a heartbeat gets what was found: [`Group::patterns_wanted`] says beforehand what it needs.

use super::member::{JOINS, Member};
use super::record::Resolved;
use super::{Env, Group, Heartbeat};
use crate::base::limits::{PATTERN_BYTES_MAX, PATTERN_REFRESH_MS_MIN};
use crate::cluster::image::ClusterImage;
use std::collections::{BTreeMap, BTreeSet};

/// What was found out about patterns.
#[derive(Clone, Debug, Default)]
pub struct Matches {
    /// The version of the image that was looked at.
    pub version: u64,
    found: BTreeMap<String, Match>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The topics whose whole name matches, in ascending order.
    Topics(Vec<String>),
    /// It is no pattern: why.
    Invalid(String),
    /// There was no time to look at all topics.
    TooSlow,
}

/// Nobody has looked for anything.
pub static NO_MATCHES: Matches = Matches { version: 0, found: BTreeMap::new() };

impl Matches {
    /// Holds patterns against the topics, one after the other, for as long as there `is_time`.
    pub fn of(patterns: &[String], image: &ClusterImage, is_time: impl Fn() -> bool) -> Matches {
        let look = |pattern: &String| (pattern.clone(), look(pattern, image, &is_time));
        Matches { version: image.version, found: patterns.iter().map(look).collect() }
    }

    pub fn get(&self, pattern: &str) -> Option<&Match> {
        self.found.get(pattern)
    }

    /// These topics as a group's record has them.
    pub(super) fn resolved(&self, topics: &[String], now_ms: i64) -> Resolved {
        let version = i64::try_from(self.version).unwrap_or(i64::MAX);
        Resolved { topics: topics.to_vec(), version, at_ms: now_ms }
    }
}

fn look(pattern: &str, image: &ClusterImage, is_time: &impl Fn() -> bool) -> Match {
    if !is_time() {
        return Match::TooSlow;
    }
    let whole = format!("^(?:{pattern})$");
    let regex = match regex::RegexBuilder::new(&whole).size_limit(PATTERN_BYTES_MAX).build() {
        Ok(regex) => regex,
        Err(error) => return Match::Invalid(error.to_string()),
    };
    let mut topics = Vec::new();
    for name in image.topics.keys() {
        if !is_time() {
            return Match::TooSlow;
        }
        if regex.is_match(name) {
            topics.push(name.to_string());
        }
    }
    Match::Topics(topics)
}

impl Group {
    /// The patterns that have to be held against the topics before this heartbeat: its own first, if that is new to the group, and all
    /// where topics have changed. Most heartbeats need none.
    pub fn patterns_wanted(&self, now_ms: i64, env: &Env<'_>, request: &Heartbeat) -> Vec<String> {
        if request.epoch < JOINS {
            return Vec::new();
        }
        let own = request.regex.as_deref().filter(|regex| !regex.is_empty());
        let are_due = self.patterns_are_due(now_ms, env.image);
        let mut wanted: Vec<String> =
            own.filter(|own| are_due || !self.regexes.contains_key(*own)).into_iter().map(str::to_owned).collect();
        if are_due {
            let used: BTreeSet<&str> = self.members.values().filter_map(Member::regex).collect();
            wanted.extend(used.into_iter().filter(|regex| Some(*regex) != own).map(str::to_owned));
        }
        wanted
    }

    /// The member is there, and its pattern, if it has one, was held against the topics before.
    pub fn knows_pattern_of(&self, request: &Heartbeat) -> bool {
        let own = request.regex.as_deref().filter(|regex| !regex.is_empty());
        let is_known = own.is_none_or(|own| self.regexes.contains_key(own));
        is_known && request.epoch > JOINS && self.members.contains_key(request.member_id.as_str())
    }

    /// Topics have changed since all patterns were held against them, and that is some time ago.
    pub(super) fn patterns_are_due(&self, now_ms: i64, image: &ClusterImage) -> bool {
        match self.looked.patterns_of {
            None => true,
            Some((version, at_ms)) => version != image.version && now_ms - at_ms >= PATTERN_REFRESH_MS_MIN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::set_topic;
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_pattern_matches_whole_names_is_none_or_takes_too_long() {
        let mut image = ClusterImage::default();
        for (id, name) in (1..).zip(["a", "ab", "abc", "b"]) {
            set_topic(&mut image, name, id, 1);
        }
        let huge = "(((a{1000}){1000}){1000})".to_owned();
        let patterns = ["a.?".to_owned(), "(".to_owned(), huge.clone(), ".*".to_owned()];
        let found = Matches::of(&patterns, &image, || true);
        assert_eq!(found.get("a.?"), Some(&Match::Topics(vec!["a".to_owned(), "ab".to_owned()])));
        assert!(matches!(found.get("("), Some(Match::Invalid(_))));
        assert!(matches!(found.get(&huge), Some(Match::Invalid(_))), "larger than its bound");
        let left = Cell::new(8);
        let found = Matches::of(&patterns, &image, || left.replace(left.get() - 1) > 0);
        assert!(matches!(found.get("a.?"), Some(Match::Topics(_))));
        assert_eq!(found.get(".*"), Some(&Match::TooSlow));
    }
}

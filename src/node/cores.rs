//! Which cores the shards are pinned to: a run-time choice, unlike the number of shards.

use crate::shard::runtime::allowed_cpus;
use anyhow::bail;
use std::str::FromStr;

/// What `--cores` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    Count(u16),
    /// Each once, in the order given.
    List(Vec<usize>),
}

/// Cores beyond this are none.
const CORE_MAX: usize = 1 << 16;

impl FromStr for Choice {
    type Err = String;

    /// Reads a number, or a list such as `0-3,8`.
    fn from_str(text: &str) -> Result<Choice, String> {
        let text = text.trim();
        if !text.contains([',', '-']) {
            let count = text.parse::<u16>().ok().filter(|count| *count > 0);
            return count.map(Choice::Count).ok_or_else(|| "a number from 1 on, or a list like 0-3,8".to_owned());
        }
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let number = |word: &str| word.trim().parse::<usize>().map_err(|_| format!("{part:?} is no core"));
            let (from, to) = (number(from)?, number(to)?);
            if from > to || to >= CORE_MAX {
                return Err(format!("{part:?} is no range of cores"));
            }
            for core in from..=to {
                if !cores.contains(&core) {
                    cores.push(core);
                }
            }
        }
        Ok(Choice::List(cores))
    }
}

/// The cores that `--cores` names, or the setting `cores` counts, or all that this process may use.
pub fn chosen(choice: Option<&Choice>, count: Option<u16>) -> anyhow::Result<Vec<usize>> {
    let allowed = allowed_cpus();
    if allowed.is_empty() {
        bail!("the cores that this process may use cannot be found out");
    }
    pick(choice, count, allowed)
}

/// The same, of `allowed` cores, in order.
pub fn pick(choice: Option<&Choice>, count: Option<u16>, allowed: Vec<usize>) -> anyhow::Result<Vec<usize>> {
    let first = |origin: &str, count: u16| match allowed.get(..usize::from(count)) {
        Some(cores) => Ok(cores.to_vec()),
        None => bail!(
            "{origin} {count}: this process may run on {} cores only, {allowed:?}; more shards than cores share them",
            allowed.len()
        ),
    };
    match (choice, count) {
        (Some(Choice::Count(count)), _) => first("--cores", *count),
        (Some(Choice::List(cores)), _) => match cores.iter().find(|core| !allowed.contains(core)) {
            Some(core) => bail!("--cores: this process may not run on core {core}; it may on {allowed:?}"),
            None => Ok(cores.clone()),
        },
        (None, Some(count)) => first("cores =", count),
        (None, None) => Ok(allowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_lists_name_cores_that_are_allowed() {
        let allowed = vec![0, 1, 2, 5];
        let read = |text: &str| text.parse::<Choice>();
        let picked = |text: &str| pick(Some(&read(text).expect("sound")), None, allowed.clone());
        assert_eq!(picked("0-2,5").expect("valid"), [0, 1, 2, 5]);
        assert_eq!(picked("5,5,1").expect("valid"), [5, 1]);
        assert_eq!(picked("2").expect("valid"), [0, 1]);
        assert_eq!(pick(None, None, allowed.clone()).expect("valid"), allowed);
        for bad in ["2-1", "0-", "a,b", "x", "0", "-1", "1.5"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        for beyond in ["3,4", "0-3", "5-6", "99"] {
            assert!(picked(beyond).is_err(), "{beyond}");
        }
        let refused = pick(None, Some(5), allowed.clone()).expect_err("four cores").to_string();
        assert!(refused.starts_with("cores = 5: this process may run on 4 cores only"), "{refused}");
    }
}

//! Which cores the shards are pinned to: a run-time choice, unlike the number of shards.

use crate::shard::runtime::allowed_cpus;
use anyhow::{Context, bail};

/// The cores that `--cores` names (a number, or a list such as `0-3,8`), or all that this process may use.
pub fn chosen(list: Option<&str>, count: Option<u16>) -> anyhow::Result<Vec<usize>> {
    let allowed = allowed_cpus();
    if allowed.is_empty() {
        bail!("the cores that this process may use cannot be found out");
    }
    match (list.map(str::trim), count) {
        (Some(text), _) if text.contains([',', '-']) => parse_list(text, &allowed),
        (Some(text), _) => {
            let count: usize =
                text.parse().with_context(|| format!("--cores {text}: a number, or a list like 0-3,8"))?;
            first(count, &allowed)
        }
        (None, Some(count)) => first(usize::from(count), &allowed),
        (None, None) => Ok(allowed),
    }
}

fn first(count: usize, allowed: &[usize]) -> anyhow::Result<Vec<usize>> {
    if count == 0 {
        bail!("cores = 0: must be at least 1");
    }
    // More cores than there are: shards beyond that share, which is what fewer cores mean anyway.
    Ok(allowed[..count.min(allowed.len())].to_vec())
}

fn parse_list(text: &str, allowed: &[usize]) -> anyhow::Result<Vec<usize>> {
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let number = |word: &str| word.trim().parse::<usize>().with_context(|| format!("--cores: {part:?} is no core"));
        let (from, to) = (number(from)?, number(to)?);
        if from > to || to >= 1 << 16 {
            bail!("--cores: {part:?} is no range of cores");
        }
        for core in from..=to {
            if !allowed.contains(&core) {
                bail!("--cores: this process may not run on core {core}; it may on {allowed:?}");
            }
            if !cores.contains(&core) {
                cores.push(core);
            }
        }
    }
    Ok(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_name_cores_that_are_allowed() {
        let allowed = [0, 1, 2, 5];
        assert_eq!(parse_list("0-2,5", &allowed).expect("valid"), [0, 1, 2, 5]);
        assert_eq!(parse_list("5,5,1", &allowed).expect("valid"), [5, 1]);
        for bad in ["3", "2-1", "0-", "a,b", "0-3"] {
            assert!(parse_list(bad, &allowed).is_err(), "{bad}");
        }
        assert!(first(0, &allowed).is_err());
        assert_eq!(first(9, &allowed).expect("valid"), allowed);
    }
}

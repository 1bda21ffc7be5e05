//! Values below /proc/sys: whether one is good, and what to write if not. Pure.

use super::facts::{Facts, Reading};
use super::items::{DIRTY_MEMORY_MAX_BYTES, Rule};
use super::parse;

/// What becomes of one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    Good {
        current: String,
    },
    Change {
        current: String,
        path: &'static str,
        value: String,
        twin: Option<&'static str>,
    },
    /// This kernel does not have it.
    Absent,
    Unknown(String),
}

/// Judges the value of `path` by its rule.
pub fn judge(path: &'static str, rule: Rule, facts: &Facts) -> Judged {
    let text = match facts.sysctls.get(path) {
        Some(Reading::Known(text)) => text,
        Some(Reading::Unknown(why)) => return Judged::Unknown(why.clone()),
        Some(Reading::Absent) | None => return Judged::Absent,
    };
    let (limit, is_good): (u64, fn(u64, u64) -> bool) = match rule {
        Rule::MostAtLeast(least) => return judge_most(path, text, least),
        Rule::AtMost(limit) => (limit, |now, limit| now <= limit),
        Rule::AtLeast(limit) => (limit, |now, limit| now >= limit),
        Rule::DirtyAtMost(percent, bytes) | Rule::DirtyAtLeast(percent, bytes) => {
            match judge_dirty(path, percent, bytes, facts) {
                Some(judged) => return judged,
                None if matches!(rule, Rule::DirtyAtMost(..)) => (percent, |now, limit| now <= limit),
                None => (percent, |now, limit| now >= limit),
            }
        }
    };
    match parse::number::<u64>(text) {
        Err(why) => Judged::Unknown(why),
        Ok(now) if is_good(now, limit) => Judged::Good { current: now.to_string() },
        Ok(now) => Judged::Change { current: now.to_string(), path, value: limit.to_string(), twin: None },
    }
}

/// `4096 131072 6291456`: the last is raised, the others stay.
fn judge_most(path: &'static str, text: &str, wanted: u64) -> Judged {
    let numbers: Result<Vec<u64>, String> = text.split_whitespace().take(4).map(parse::number).collect();
    match numbers.as_deref() {
        Ok([least, usual, most]) => {
            let current = format!("{least} {usual} {most}");
            match *most >= wanted {
                true => Judged::Good { current },
                false => Judged::Change { current, path, value: format!("{least} {usual} {wanted}"), twin: None },
            }
        }
        Ok(_) => Judged::Unknown(format!("{:?} is not three numbers", parse::shortened(text))),
        Err(why) => Judged::Unknown(why.clone()),
    }
}

/// The cases in which bytes count rather than the percentage; None: the percentage does.
fn judge_dirty(path: &'static str, percent: u64, bytes: &'static str, facts: &Facts) -> Option<Judged> {
    let in_bytes = facts.sysctls.get(bytes).and_then(Reading::known);
    let in_bytes = in_bytes.and_then(|text| parse::number::<u64>(text).ok())?;
    // Somebody has chosen bytes, which nobody does by accident: ours, or better ones.
    if in_bytes > 0 {
        return Some(Judged::Good { current: format!("{in_bytes} bytes") });
    }
    let memory = *facts.memory_bytes.known()?;
    let is_much = memory > DIRTY_MEMORY_MAX_BYTES;
    let ratio = facts.sysctls.get(path)?.known()?.trim();
    // The kernel would not let us come back to that.
    if is_much && ratio == "0" {
        return Some(Judged::Unknown("both the percentage and the bytes are 0".to_owned()));
    }
    let current = format!("{ratio} %");
    let value = (DIRTY_MEMORY_MAX_BYTES * percent / 100).to_string();
    is_much.then_some(Judged::Change { current, path: bytes, value, twin: Some(path) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATIO: &str = "/proc/sys/vm/dirty_ratio";
    const BYTES: &str = "/proc/sys/vm/dirty_bytes";

    fn facts(values: &[(&'static str, &str)], memory: u64) -> Facts {
        let sysctls = values.iter().map(|(path, value)| (*path, Reading::Known(value.to_string()))).collect();
        Facts { sysctls, memory_bytes: Reading::Known(memory), ..Facts::default() }
    }

    #[test]
    fn what_is_good_stays_as_it_is() {
        let judged = |rule, value: &str| judge("/p", rule, &facts(&[("/p", value)], 1 << 30));
        let change = |value: &str| match judged(Rule::AtLeast(4096), value) {
            Judged::Change { value, .. } => Some(value),
            _ => None,
        };
        assert_eq!((change("128\n"), change("65535\n")), (Some("4096".into()), None), "more than enough is enough");
        assert_eq!(judged(Rule::AtMost(1), "0\n"), Judged::Good { current: "0".into() });
        let Judged::Change { value, .. } = judged(Rule::MostAtLeast(16 << 20), "4096\t131072\t6291456\n") else {
            panic!()
        };
        assert_eq!(value, "4096 131072 16777216", "the least and the usual size stay");
        for odd in ["", "x", "4096 131072", "1 2 3 4", "99999999999999999999 1 1"] {
            assert!(matches!(judged(Rule::MostAtLeast(1), odd), Judged::Unknown(_)), "{odd}");
        }
        assert_eq!(judge("/other", Rule::AtMost(1), &facts(&[], 1)), Judged::Absent);
    }

    #[test]
    fn dirty_pages_by_part_of_memory_or_by_bytes() {
        let rule = Rule::DirtyAtLeast(60, BYTES);
        let judged = |ratio, bytes, memory| judge(RATIO, rule, &facts(&[(RATIO, ratio), (BYTES, bytes)], memory));
        let change = |path, value: &str, twin| match judged("20\n", "0\n", if twin { 1 << 40 } else { 64 << 30 }) {
            Judged::Change { path: at, value: to, twin: other, .. } => {
                (at, to.as_str(), other) == (path, value, twin.then_some(RATIO))
            }
            _ => false,
        };
        assert!(change(RATIO, "60", false));
        assert!(change(BYTES, "82463372083", true), "60 % of 128 GiB");
        assert_eq!(judged("0\n", "1000000\n", 1 << 40), Judged::Good { current: "1000000 bytes".into() });
        assert_eq!(judged("80\n", "0\n", 64 << 30), Judged::Good { current: "80".into() });
    }
}

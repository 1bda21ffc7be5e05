//! The kernel's texts, read without trusting them: each function gives what it found or says what is wrong.

use super::facts::{Mount, Swap};
use crate::base::limits::TUNING_TABLE_ROWS_MAX;

/// A number that stands alone in its file.
pub fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("{:?} is no number", shortened(text)))
}

/// The choice in brackets of `none [mq-deadline] kyber`; a single word without brackets is chosen, too.
pub fn selected(text: &str) -> Result<&str, String> {
    let mut words = text.split_whitespace();
    let chosen = words.clone().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    chosen
        .or_else(|| words.next().filter(|_| words.next().is_none()))
        .filter(|word| !word.is_empty())
        .ok_or_else(|| format!("{:?} names no choice", shortened(text)))
}

/// All words of such a file, without brackets.
pub fn choices(text: &str) -> Vec<&str> {
    text.split_whitespace().map(|word| word.trim_matches(['[', ']'])).collect()
}

/// The value of a line `Key: value` or `Key:\tvalue`.
pub fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

/// A limit of /proc/PID/limits: soft and hard, None for unlimited.
pub fn limit(text: &str, name: &str) -> Result<(Option<u64>, Option<u64>), String> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no line {name:?}"))?;
    let mut values = line.split_whitespace().map(|word| match word {
        "unlimited" => Ok(None),
        word => number(word).map(Some),
    });
    let mut next = || values.next().unwrap_or_else(|| Err(format!("the line {name:?} is too short")));
    Ok((next()?, next()?))
}

/// MemTotal of /proc/meminfo.
pub fn memory_bytes(text: &str) -> Result<u64, String> {
    let value = field(text, "MemTotal").ok_or("no line MemTotal")?;
    let kib: u64 = number(value.strip_suffix("kB").unwrap_or(value))?;
    Ok(kib.saturating_mul(1024))
}

/// Rows of /proc/swaps below its head.
pub fn swaps(text: &str) -> Vec<Swap> {
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        let name = unescaped(words.next()?);
        let kib = words.nth(1)?.parse::<u64>().ok()?;
        Some(Swap { name, bytes: kib.saturating_mul(1024) })
    };
    text.lines().skip(1).take(TUNING_TABLE_ROWS_MAX).filter_map(row).collect()
}

/// The deepest mount above a path in /proc/PID/mountinfo; of several on one point the last, which is on top.
///
/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAGS…] - KIND SOURCE OPTIONS`
pub fn mount_of(text: &str, path: &str) -> Option<Mount> {
    let mut best: Option<Mount> = None;
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (mut left, mut right) = (left.split(' ').skip(2), right.split(' '));
        let (Some(device), Some(point), Some(options)) = (left.next(), left.nth(1), left.next()) else { continue };
        let (Some(kind), Some(source)) = (right.next(), right.next()) else { continue };
        let point = unescaped(point);
        let below = |rest: &str| rest.is_empty() || rest.starts_with('/') || point == "/";
        let deeper = best.as_ref().is_none_or(|best| point.len() >= best.point.len());
        if deeper && path.strip_prefix(point.as_str()).is_some_and(below) {
            let options = format!("{options},{}", right.next().unwrap_or_default());
            best = Some(Mount {
                device: device.to_owned(),
                point,
                kind: kind.to_owned(),
                source: unescaped(source),
                options: options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect(),
            });
        }
    }
    best
}

/// The path of a controller in /proc/PID/cgroup; "" for the unified hierarchy.
pub fn cgroup<'a>(text: &'a str, controller: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let names = parts.nth(1)?;
        let path = parts.next()?;
        names.split(',').any(|name| name == controller).then_some(path)
    })
}

/// `MAX PERIOD` of cpu.max as CPUs; None: no limit.
pub fn quota(text: &str) -> Result<Option<f64>, String> {
    match text.split_whitespace().collect::<Vec<_>>()[..] {
        ["max", ..] => Ok(None),
        [quota, period] => share(number::<i64>(quota)?, number::<i64>(period)?),
        _ => Err(format!("{:?} is no quota", shortened(text))),
    }
}

/// A quota and its period, in the same unit, as CPUs; a negative quota is none.
pub fn share(quota: i64, period: i64) -> Result<Option<f64>, String> {
    match period > 0 {
        true => Ok((quota >= 0).then(|| quota as f64 / period as f64)),
        false => Err(format!("a period of {period}")),
    }
}

/// Major and minor of a kernel's release.
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The kernel writes blanks and the like as a backslash and three octal digits.
fn unescaped(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

/// As much of a value as an error shows.
pub fn shortened(text: &str) -> String {
    text.trim().chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOUNTS: &str = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
        27 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,discard\n\
        40 27 253:0 / /data rw,noatime shared:2 master:1 - xfs /dev/mapper/vg-data rw,attr2\n\
        41 27 0:50 / /data/my\\040disk rw - btrfs /dev/sdb rw\n\
        broken line\n";

    #[test]
    fn the_deepest_mount_counts() {
        let kind = |path: &str| mount_of(MOUNTS, path).map(|mount| mount.kind);
        assert_eq!(kind("/home").as_deref(), Some("ext4"));
        assert_eq!(kind("/data/logs").as_deref(), Some("xfs"));
        assert_eq!(kind("/database").as_deref(), Some("ext4"), "a name that only begins alike is elsewhere");
        assert_eq!(kind("/data/my disk/x").as_deref(), Some("btrfs"));
        let data = mount_of(MOUNTS, "/data").expect("it is mounted");
        assert_eq!((data.device.as_str(), data.source.as_str()), ("253:0", "/dev/mapper/vg-data"));
        assert_eq!(data.options, ["rw", "noatime", "rw", "attr2"]);
        assert_eq!(mount_of("", "/x"), None);
    }

    #[test]
    fn choices_stand_in_brackets() {
        assert_eq!(selected("none [mq-deadline] kyber\n"), Ok("mq-deadline"));
        assert_eq!(selected("none\n"), Ok("none"));
        assert!(selected("none kyber").is_err() && selected("").is_err() && selected("[]").is_err());
        assert_eq!(choices("[none] kyber"), ["none", "kyber"]);
    }

    #[test]
    fn limits_and_quotas() {
        let text = "Limit    Soft Limit   Hard Limit   Units\nMax open files            1024                 524288               files \n\
                    Max locked memory         8388608              unlimited            bytes     \n";
        assert_eq!(limit(text, "Max open files"), Ok((Some(1024), Some(524_288))));
        assert_eq!(limit(text, "Max locked memory"), Ok((Some(8 << 20), None)));
        assert!(limit(text, "Max cpu time").is_err() && limit("Max open files 7", "Max open files").is_err());
        assert_eq!(quota("max 100000"), Ok(None));
        assert_eq!(quota("150000 100000"), Ok(Some(1.5)));
        assert!(quota("1 0").is_err() && quota("").is_err());
        assert_eq!(cgroup("3:cpuset:/a\n2:cpu,cpuacct:/b\n0::/c:d\n", "cpu"), Some("/b"));
        assert_eq!(cgroup("3:cpuset:/a\n0::/c:d\n", ""), Some("/c:d"));
        assert_eq!(version("6.1.0-21-amd64"), Some((6, 1)));
        assert_eq!(memory_bytes("MemTotal:       24684084 kB\n"), Ok(24_684_084 << 10));
        let swaps = swaps("Filename Type Size Used Priority\n/dev/dm-1 partition 8388604 0 -2\nodd\n");
        assert_eq!(swaps, [Swap { name: "/dev/dm-1".into(), bytes: 8_388_604 << 10 }]);
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "(\\PC|\n| |:|-|,|\t){0,200}") {
            let _ = (selected(&text), choices(&text), field(&text, "a"), limit(&text, ""), memory_bytes(&text));
            let _ = (swaps(&text), mount_of(&text, "/"), cgroup(&text, ""), quota(&text), version(&text));
        }
    }
}

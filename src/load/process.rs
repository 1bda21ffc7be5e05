//! CPU time and memory of a process, from /proc.

use super::measure::Usage;
use std::fs;
use std::io;
use std::time::Duration;

/// What this process has used so far.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has another form"));
    let ticks = cpu_ticks(&stat).ok_or_else(malformed)?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Usage { cpu: Duration::from_secs_f64(ticks as f64 / per_second as f64), resident_bytes: resident(&status) })
}

/// User and system time; the process's name, which may hold anything, ends with the last parenthesis.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.trim().parse().ok()?;
    Some(user + system)
}

fn resident(status: &str) -> u64 {
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_blanks_and_parentheses_do_not_matter() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (a"), None);
        assert_eq!(resident("Name:\tx\nVmRSS:\t   2048 kB\n"), 2 << 20);
    }

    #[test]
    fn this_process_has_used_something() {
        assert!(usage(std::process::id()).expect("it runs").resident_bytes > 0);
        assert!(usage(u32::MAX).is_err());
    }
}

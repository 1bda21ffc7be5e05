//! Reads the facts, below any root. Whatever cannot be read is absent or unknown; nothing here fails.

use super::cpus::Cpus;
use super::devices;
use super::facts::{Cpu, DataDir, Facts, Governor, Irq, Process, Reading, Ring, Space};
use super::files::Files;
use super::items::{Action, ITEMS, Rule};
use super::parse;
use crate::base::limits::{TUNING_TABLE_BYTES_MAX, TUNING_VALUE_BYTES_MAX};
use std::collections::BTreeMap;
use std::io;

/// Daemons that keep the clock right; the kernel cuts names to 15 bytes.
const TIME_DAEMONS: &[&str] = &["chronyd", "ntpd", "systemd-timesyn", "openntpd", "ptp4l", "phc2sys", "timemaster"];

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// As the machine below the root sees them; they need not exist yet.
    pub data_dirs: Vec<String>,
    /// Network cards; none: all that are up.
    pub nics: Vec<String>,
}

/// What only the running kernel can say, and only of the machine that this process runs on.
#[derive(Clone, Debug, Default)]
pub struct Live {
    pub ring: Ring,
    pub clock_synchronized: Reading<bool>,
}

/// Everything that is looked at.
pub fn gather(files: &dyn Files, live: Live, wish: &Wish) -> Facts {
    let mut facts = Facts {
        kernel: word(files, "/proc/sys/kernel/osrelease"),
        ring: live.ring,
        online: cpus(files, "/sys/devices/system/cpu/online"),
        memory_bytes: table(files, "/proc/meminfo").and_then(|text| parse::memory_bytes(&text)),
        sysctls: sysctls(files),
        clocksource: clocksource(files),
        swaps: table(files, "/proc/swaps").map(|text| parse::swaps(&text)),
        clock_synchronized: live.clock_synchronized,
        nics: devices::nics(files, &wish.nics),
        ..Facts::default()
    };
    look_at_processes(files, &mut facts);
    facts.process = process(files, facts.nodes.first().map(|(pid, _)| *pid));
    facts.cpus = topology(files, facts.online.known());
    facts.governors = governors(files, facts.online.known());
    for path in &wish.data_dirs {
        let dir = data_dir(files, path);
        for name in &dir.disks {
            if facts.disks.iter().all(|disk| disk.name != *name) {
                facts.disks.push(devices::disk(files, name));
            }
        }
        facts.dirs.push(dir);
    }
    let numbers = facts.disks.iter().flat_map(|disk| &disk.irqs).chain(facts.nics.iter().flat_map(|nic| &nic.irqs));
    facts.irqs = numbers.map(|number| (*number, irq(files, *number))).collect();
    facts
}

/// A file with one value: all of its text.
pub(super) fn text(files: &dyn Files, path: &str) -> Reading<String> {
    read(files, path, TUNING_VALUE_BYTES_MAX)
}

/// The same without white space around it.
pub(super) fn word(files: &dyn Files, path: &str) -> Reading<String> {
    text(files, path).map(|text| text.trim().to_owned())
}

pub(super) fn cpus(files: &dyn Files, path: &str) -> Reading<Cpus> {
    text(files, path).and_then(|text| text.parse().map_err(|error| format!("{error}")))
}

pub(super) fn number<T: std::str::FromStr>(files: &dyn Files, path: &str) -> Reading<T> {
    text(files, path).and_then(|text| parse::number(&text))
}

/// A longer file of lines.
fn table(files: &dyn Files, path: &str) -> Reading<String> {
    read(files, path, TUNING_TABLE_BYTES_MAX)
}

fn read(files: &dyn Files, path: &str, max: usize) -> Reading<String> {
    match files.read(path, max) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) if text.contains('\0') => Reading::Unknown(format!("{path} holds bytes that are no text")),
            Ok(text) => Reading::Known(text),
            Err(_) => Reading::Unknown(format!("{path} holds bytes that are no text")),
        },
        Err(error) if is_absent(&error) => Reading::Absent,
        Err(error) => Reading::Unknown(format!("{path}: {error}")),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// All values below /proc/sys that the table of items names.
fn sysctls(files: &dyn Files) -> BTreeMap<&'static str, Reading<String>> {
    let mut paths = vec!["/proc/sys/kernel/io_uring_disabled"];
    for item in ITEMS {
        if let Action::Sysctl(rule) = item.action {
            paths.push(item.reads);
            if let Rule::DirtyAtMost(_, bytes) | Rule::DirtyAtLeast(_, bytes) = rule {
                paths.push(bytes);
            }
        }
    }
    paths.into_iter().map(|path| (path, text(files, path))).collect()
}

fn clocksource(files: &dyn Files) -> Reading<(String, Vec<String>)> {
    let dir = "/sys/devices/system/clocksource/clocksource0";
    let available = word(files, &format!("{dir}/available_clocksource"));
    let available = available.known().map(|text| parse::choices(text).iter().map(ToString::to_string).collect());
    word(files, &format!("{dir}/current_clocksource")).map(|current| (current, available.unwrap_or_default()))
}

/// One pass over all processes: nodes, irqbalance, daemons of time.
fn look_at_processes(files: &dyn Files, facts: &mut Facts) {
    let names = match files.list("/proc") {
        Ok(names) => names,
        Err(error) => {
            facts.irqbalance = Reading::Unknown(format!("/proc: {error}"));
            return;
        }
    };
    let mut balancer = None;
    for pid in names.iter().filter_map(|name| name.parse::<u32>().ok()) {
        let Reading::Known(name) = word(files, &format!("/proc/{pid}/comm")) else { continue };
        match name.as_str() {
            "irqbalance" => balancer = Some(pid),
            "corelog" => facts.nodes.extend(pinned_shards(files, pid).map(|cpus| (pid, cpus))),
            name if TIME_DAEMONS.contains(&name) => facts.time_daemons.push(name.to_owned()),
            _ => {}
        }
    }
    facts.irqbalance = Reading::Known(balancer);
}

/// The CPUs of a process's shards; None: it has none, so it is no node (but some other command).
fn pinned_shards(files: &dyn Files, pid: u32) -> Option<Cpus> {
    let mut pinned = Cpus::default();
    for thread in files.list(&format!("/proc/{pid}/task")).ok()? {
        let dir = format!("/proc/{pid}/task/{thread}");
        if word(files, &format!("{dir}/comm")).known().is_some_and(|name| name.starts_with("shard-")) {
            let status = text(files, &format!("{dir}/status"));
            let allowed = status.known().and_then(|text| parse::field(text, "Cpus_allowed_list")?.parse::<Cpus>().ok());
            pinned.extend(allowed.iter().flat_map(Cpus::iter));
        }
    }
    (!pinned.is_empty()).then_some(pinned)
}

fn process(files: &dyn Files, node: Option<u32>) -> Process {
    let dir = node.map_or_else(|| "/proc/self".to_owned(), |pid| format!("/proc/{pid}"));
    let (limits, status) = (text(files, &format!("{dir}/limits")), text(files, &format!("{dir}/status")));
    let limit = |name: &str| limits.clone().and_then(|text| parse::limit(&text, name));
    let field = |key: &str| {
        status.clone().and_then(|text| {
            parse::field(&text, key).map(str::to_owned).ok_or_else(|| format!("{dir}/status has no line {key}"))
        })
    };
    let hexadecimal = |text: String| u64::from_str_radix(&text, 16).map_err(|_| format!("{text:?} is no number"));
    Process {
        node,
        open_files: limit("Max open files").map(|(_, hard)| hard),
        locked_memory: limit("Max locked memory").map(|(soft, _)| soft),
        allowed: field("Cpus_allowed_list").and_then(|text| text.parse().map_err(|error| format!("{error}"))),
        // Of this process, which is the one that asked for a ring.
        seccomp: text(files, "/proc/self/status").and_then(|text| {
            parse::field(&text, "Seccomp").ok_or("no line Seccomp".to_owned()).and_then(parse::number)
        }),
        quota: text(files, &format!("{dir}/cgroup")).and_then(|text| quota(files, &text)),
        capabilities: field("CapEff").and_then(hexadecimal),
    }
}

/// The least quota of a process's group and those above it, in either version of cgroups.
fn quota(files: &dyn Files, cgroups: &str) -> Result<Option<f64>, String> {
    let mut least: Option<f64> = None;
    let mut lower = |quota: Option<f64>| least = quota.into_iter().chain(least).reduce(f64::min);
    for group in parse::cgroup(cgroups, "").into_iter().flat_map(and_above) {
        for mount in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
            if let Some(text) = known_or_told(text(files, &format!("{mount}{group}/cpu.max")))? {
                lower(parse::quota(&text)?);
            }
        }
    }
    for group in parse::cgroup(cgroups, "cpu").into_iter().flat_map(and_above) {
        let dir = format!("/sys/fs/cgroup/cpu{group}");
        let quota = known_or_told(number::<i64>(files, &format!("{dir}/cpu.cfs_quota_us")))?;
        let period = known_or_told(number::<i64>(files, &format!("{dir}/cpu.cfs_period_us")))?;
        if let (Some(quota), Some(period)) = (quota, period) {
            lower(parse::share(quota, period)?);
        }
    }
    Ok(least)
}

fn known_or_told<T>(reading: Reading<T>) -> Result<Option<T>, String> {
    match reading {
        Reading::Known(value) => Ok(Some(value)),
        Reading::Absent => Ok(None),
        Reading::Unknown(why) => Err(why),
    }
}

/// A path of a group and those of the groups above it: `/a/b`, `/a`, and the root as "".
fn and_above(group: &str) -> impl Iterator<Item = &str> {
    let first = group.trim_end_matches('/');
    std::iter::successors(Some(first), |path| path.rfind('/').map(|at| &path[..at]))
}

fn topology(files: &dyn Files, online: Option<&Cpus>) -> Vec<Cpu> {
    let Some(online) = online else { return Vec::new() };
    let mut node_of: BTreeMap<usize, usize> = BTreeMap::new();
    for name in files.list("/sys/devices/system/node").unwrap_or_default() {
        if let Some(node) = name.strip_prefix("node").and_then(|number| number.parse().ok())
            && let Reading::Known(cpus) = cpus(files, &format!("/sys/devices/system/node/{name}/cpulist"))
        {
            node_of.extend(cpus.iter().map(|cpu| (cpu, node)));
        }
    }
    let cpu = |id| {
        let part = |name| {
            let path = format!("/sys/devices/system/cpu/cpu{id}/topology/{name}");
            number::<usize>(files, &path).known().copied()
        };
        // A CPU that tells nothing is taken for a core of its own; some machines have -1 for the package.
        Cpu {
            id,
            package: part("physical_package_id").unwrap_or(0),
            core: part("core_id").unwrap_or(id),
            node: node_of.get(&id).copied().unwrap_or(0),
        }
    };
    online.iter().map(cpu).collect()
}

fn governors(files: &dyn Files, online: Option<&Cpus>) -> Vec<Governor> {
    let read = |cpu| {
        let dir = format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq");
        let available = word(files, &format!("{dir}/scaling_available_governors"));
        let available =
            available.known().map(|text| text.split_whitespace().map(str::to_owned).collect()).unwrap_or_default();
        Governor { cpu, current: text(files, &format!("{dir}/scaling_governor")), available }
    };
    let governors = online.into_iter().flat_map(Cpus::iter).map(read);
    governors.filter(|governor| governor.current != Reading::Absent).collect()
}

fn data_dir(files: &dyn Files, path: &str) -> DataDir {
    // Where it is not made yet, what is above it decides.
    let above =
        std::iter::successors(Some(path), |path| path.rfind('/').map(|at| if at == 0 { "/" } else { &path[..at] }));
    let existing = above.take(path.matches('/').count() + 2).find_map(|path| files.resolved(path).ok());
    let here = existing.unwrap_or_else(|| "/".to_owned());
    let mount = table(files, "/proc/self/mountinfo")
        .and_then(|text| parse::mount_of(&text, &here).ok_or_else(|| format!("no mount holds {here}")));
    let space = match files.space(&here) {
        Ok((free_bytes, total_bytes)) => Reading::Known(Space { free_bytes, total_bytes }),
        Err(error) => Reading::Unknown(format!("{here}: {error}")),
    };
    let disks = mount.known().map(|mount| devices::disks_of(files, mount)).unwrap_or_default();
    DataDir { path: path.to_owned(), mount, space, disks }
}

fn irq(files: &dyn Files, number: u32) -> Irq {
    let dir = format!("/proc/irq/{number}");
    let wanted = text(files, &format!("{dir}/smp_affinity_list"));
    let of_wanted = || wanted.clone().and_then(|text| text.parse().map_err(|error| format!("{error}")));
    let effective = match cpus(files, &format!("{dir}/effective_affinity_list")) {
        // Also empty, on machines whose interrupt controller does not tell.
        Reading::Known(cpus) if !cpus.is_empty() => Reading::Known(cpus),
        _ => of_wanted(),
    };
    // Since Linux 6.11 the kernel takes write permission from interrupts that it places itself.
    let managed = matches!(files.has_write_bit(&format!("{dir}/smp_affinity_list")), Ok(false));
    Irq { wanted, effective, managed }
}

//! The kernel, and what it lets the node's process do.

use super::Lines;
use crate::base::show::show_bytes;
use crate::tuning::cpus::Cpus;
use crate::tuning::facts::{Facts, Process, Reading, Ring};
use crate::tuning::items::Id;
use crate::tuning::parse;

/// The oldest kernel on which a node starts.
const KERNEL_MIN: (u32, u32) = (5, 11);
/// Buffered writes to XFS complete inline.
const KERNEL_GOOD: (u32, u32) = (6, 0);
/// What rings and registered buffers of some dozens of shards lock at most.
const LOCKED_MEMORY_GOOD_BYTES: u64 = 64 << 20;
/// CAP_IPC_LOCK: the limit of locked memory does not count.
const IPC_LOCK: u64 = 1 << 14;
/// What systemd gives as the hard limit by default; enough for 170,000 open segments.
const OPEN_FILES_GOOD: u64 = 524_288;
/// With fewer a node cannot hold what it opens at its start.
const OPEN_FILES_MIN: u64 = 1024;
/// `Seccomp:` of /proc/PID/status: system calls go through a filter.
const SECCOMP_FILTER: u64 = 2;

const ALLOW_RING: &str = "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile \
    (docker run --security-opt seccomp=FILE; systemd: SystemCallFilter=@system-service io_uring_setup io_uring_enter io_uring_register)";

pub(super) fn check(facts: &Facts, lines: &mut Lines) {
    kernel(facts, lines);
    ring(facts, lines);
    disabled(facts, lines);
    limits(&facts.process, lines);
    cpuset(facts, lines);
    quota(facts, lines);
}

fn kernel(facts: &Facts, lines: &mut Lines) {
    let Some(release) = lines.known(Id::Kernel, "", &facts.kernel) else { return };
    match parse::version(release) {
        None => lines.unknown(Id::Kernel, "", &format!("{:?} is no release", parse::shortened(release))),
        Some(version) if version < KERNEL_MIN => {
            lines.fail(Id::Kernel, "", release, "install a kernel from 5.11 on, best from 6.0 on");
        }
        Some(version) if version < KERNEL_GOOD => lines.warn(Id::Kernel, "", release, "install a kernel from 6.0 on"),
        Some(_) => lines.pass(Id::Kernel, "", release),
    }
}

fn ring(facts: &Facts, lines: &mut Lines) {
    let error = match facts.ring {
        Ring::Works => return lines.pass(Id::IoUring, "", "allowed"),
        Ring::NotTried => return lines.not_applicable(Id::IoUring, "", "not tried: this is another machine's root"),
        Ring::Refused(error) => error,
    };
    let is_filtered = facts.process.seccomp == Reading::Known(SECCOMP_FILTER);
    let disabled = facts.sysctls.get(DISABLED).and_then(Reading::known).map_or("0", |text| text.trim());
    let (current, fix) = match error {
        libc::EPERM if disabled != "0" => {
            (format!("EPERM: kernel.io_uring_disabled is {disabled}"), "sysctl -w kernel.io_uring_disabled=0")
        }
        libc::EPERM if is_filtered => {
            ("EPERM: a seccomp profile without io_uring, such as Docker's default".to_owned(), ALLOW_RING)
        }
        libc::ENOSYS if is_filtered => {
            ("ENOSYS: a seccomp profile without io_uring, or a kernel without it".to_owned(), ALLOW_RING)
        }
        libc::EPERM | libc::EACCES => (
            "EPERM: a security module or a sandbox forbids it".to_owned(),
            "see the audit log (ausearch -m avc, dmesg)",
        ),
        libc::ENOSYS => {
            ("ENOSYS: this kernel has no io_uring".to_owned(), "a kernel with CONFIG_IO_URING, from 5.11 on")
        }
        libc::ENOMEM => (
            "ENOMEM: too little memory may be locked".to_owned(),
            "ulimit -l unlimited (systemd: LimitMEMLOCK=infinity)",
        ),
        error => (format!("error {error}"), "see io_uring_setup(2)"),
    };
    lines.fail(Id::IoUring, "", current, fix);
}

const DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";

fn disabled(facts: &Facts, lines: &mut Lines) {
    let value = facts.sysctls.get(DISABLED).cloned().unwrap_or_default();
    let fix = "sysctl -w kernel.io_uring_disabled=0, if whoever answers for this machine's security agrees";
    match value.and_then(|text| parse::number::<u64>(&text)) {
        Reading::Known(0) => lines.pass(Id::IoUringDisabled, "", "0"),
        Reading::Known(1) => lines.warn(Id::IoUringDisabled, "", "1: only for privileged processes and one group", fix),
        Reading::Known(2) => lines.fail(Id::IoUringDisabled, "", "2: for nobody", fix),
        Reading::Known(other) => lines.unknown(Id::IoUringDisabled, "", &format!("the value {other}")),
        Reading::Absent => lines.not_applicable(Id::IoUringDisabled, "", "kernels before 6.6 do not have it"),
        Reading::Unknown(why) => lines.unknown(Id::IoUringDisabled, "", &why),
    }
}

fn limits(process: &Process, lines: &mut Lines) {
    let whose = process.node.map_or_else(|| "of this shell".to_owned(), |pid| format!("of the node, process {pid}"));
    if let Some(limit) = lines.known(Id::LockedMemory, "", &process.locked_memory) {
        let is_exempt = process.capabilities.known().is_some_and(|held| held & IPC_LOCK != 0);
        match limit {
            None => lines.pass(Id::LockedMemory, "", format!("unlimited, {whose}")),
            Some(bytes) => {
                let current = format!("{}, {whose}", show_bytes(*bytes));
                if is_exempt {
                    lines.pass(Id::LockedMemory, "", format!("{current}, which may exceed it (CAP_IPC_LOCK)"));
                } else if *bytes >= LOCKED_MEMORY_GOOD_BYTES {
                    lines.pass(Id::LockedMemory, "", current);
                } else {
                    let fix = "LimitMEMLOCK=infinity in the unit, ulimit -l unlimited in a shell, docker run --ulimit memlock=-1";
                    lines.warn(Id::LockedMemory, "", current, fix);
                }
            }
        }
    }
    if let Some(limit) = lines.known(Id::OpenFiles, "", &process.open_files) {
        let fix =
            "LimitNOFILE=1048576 in the unit, a line in /etc/security/limits.d, docker run --ulimit nofile=1048576";
        match limit {
            None => lines.pass(Id::OpenFiles, "", format!("unlimited, {whose}")),
            Some(limit) => {
                let current = format!("{limit}, {whose}");
                match limit {
                    0..OPEN_FILES_MIN => lines.fail(Id::OpenFiles, "", current, fix),
                    OPEN_FILES_MIN..OPEN_FILES_GOOD => lines.warn(Id::OpenFiles, "", current, fix),
                    _ => lines.pass(Id::OpenFiles, "", current),
                }
            }
        }
    }
}

/// Whole cores are wanted: both threads of one, or none.
fn cpuset(facts: &Facts, lines: &mut Lines) {
    let Some(allowed) = lines.known(Id::Cpuset, "", &facts.process.allowed) else { return };
    let core = |id: usize| facts.cpus.iter().find(|cpu| cpu.id == id).map(|cpu| (cpu.node, cpu.package, cpu.core));
    let has_stranger = |id: usize| {
        let siblings = facts.cpus.iter().filter(|cpu| Some((cpu.node, cpu.package, cpu.core)) == core(id));
        siblings.into_iter().any(|cpu| !allowed.contains(cpu.id))
    };
    let split: Cpus = allowed.iter().filter(|id| has_stranger(*id)).collect();
    let all = facts.online.known().map_or(0, Cpus::len);
    let current = match all == allowed.len() {
        true => format!("all CPUs, {allowed}"),
        false => format!("CPUs {allowed}, {} of {all}", allowed.len()),
    };
    match split.is_empty() {
        true => lines.pass(Id::Cpuset, "", current),
        false => {
            let fix = "give the container or the cgroup both threads of each core (thread_siblings_list in /sys/devices/system/cpu)";
            lines.warn(Id::Cpuset, "", format!("{current}; the other thread of {split} is somebody else's"), fix);
        }
    }
}

fn quota(facts: &Facts, lines: &mut Lines) {
    let cpus = facts.process.allowed.known().map_or(0, Cpus::len);
    match lines.known(Id::Quota, "", &facts.process.quota) {
        None => {}
        Some(None) => lines.pass(Id::Quota, "", "none"),
        Some(Some(quota)) if cpus > 0 && *quota >= cpus as f64 => {
            lines.pass(Id::Quota, "", format!("{quota:.2} CPUs for {cpus}"));
        }
        Some(Some(quota)) => {
            let fix = "use a cpuset instead (docker run --cpuset-cpus; Kubernetes: static CPU manager, whole CPUs), or as many --cores as the quota has";
            lines.warn(Id::Quota, "", format!("{quota:.2} CPUs for {cpus}"), fix);
        }
    }
}

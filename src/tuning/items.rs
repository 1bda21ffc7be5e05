//! The table of everything that is looked at: what is read, what is wanted, why, and how that is known. Pure.
//!
//! `tuning/README.md` shows this table, and the files in `tuning/` hold the same values; tests keep them equal.

/// What is looked at, in the order in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Id {
    Kernel,
    IoUring,
    IoUringDisabled,
    LockedMemory,
    OpenFiles,
    Cpuset,
    Quota,
    FileSystem,
    MountOptions,
    FreeSpace,
    WriteCache,
    Scheduler,
    Governor,
    Clocksource,
    TimeSync,
    Swap,
    Swappiness,
    DirtyBackground,
    Dirty,
    MapCount,
    Backlog,
    SynBacklog,
    FlowEntries,
    QueueFlows,
    ReceiveBuffer,
    SendBuffer,
    SlowStart,
    Autogroup,
    Numa,
    IrqAffinity,
    Irqbalance,
}

/// How it is known that an item matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// By a benchmark of this repository: which, and what it showed.
    Measured(&'static str),
    /// By others.
    Cited(&'static str),
}

/// What `corelog tune` does about an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: it is told.
    Told,
    /// Writes a value below /proc/sys.
    Sysctl(Rule),
    /// Writes what depends on the machine.
    Written,
}

/// Which values below /proc/sys are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    AtMost(u64),
    AtLeast(u64),
    /// Of three numbers (least, default, most) the last.
    MostAtLeast(u64),
    /// A percentage of memory, up to `DIRTY_MEMORY_MAX_BYTES` of it; with more, as many bytes as that would be. The kernel keeps
    /// either the percentage or the bytes (the second path), and sets the other one to 0.
    DirtyAtMost(u64, &'static str),
    DirtyAtLeast(u64, &'static str),
}

/// Memory above which percentages of it allow more dirty pages than a disk writes in reasonable time.
pub const DIRTY_MEMORY_MAX_BYTES: u64 = 128 << 30;

/// Entries of the kernel's table of flows; those of a card's queues add up to as many.
pub const FLOW_ENTRIES: u64 = 32_768;

#[derive(Clone, Copy, Debug)]
pub struct Item {
    pub id: Id,
    pub name: &'static str,
    /// The file; `*` stands for each CPU, disk, card or interrupt.
    pub reads: &'static str,
    pub wanted: &'static str,
    pub why: &'static str,
    pub evidence: Evidence,
    /// The benchmark in which a change of it could be seen on an ordinary machine; None: it needs hardware or luck.
    pub shown_by: Option<&'static str>,
    pub action: Action,
}

/// The item with this id.
pub fn item(id: Id) -> &'static Item {
    ITEMS.iter().find(|item| item.id == id).expect("each id has its item, which a test holds")
}

use Evidence::{Cited, Measured};

#[rustfmt::skip]
pub const ITEMS: &[Item] = &[
    Item {
        id: Id::Kernel, name: "kernel", reads: "/proc/sys/kernel/osrelease", wanted: "6.0 or newer (5.11 at least)",
        why: "every file is read and written through io_uring; since 6.0 buffered writes to XFS complete at once instead of in a worker thread",
        evidence: Cited("Linux 6.0: io_uring buffered writes for XFS; 5.12: rings are charged to the memory cgroup"),
        shown_by: None, action: Action::Told,
    },
    Item {
        id: Id::IoUring, name: "io_uring", reads: "io_uring_setup(2)", wanted: "allowed",
        why: "without it a node cannot start; Docker's default seccomp profile forbids it",
        evidence: Cited("moby's default seccomp profile, which lists no io_uring call since 2023"), shown_by: None, action: Action::Told,
    },
    Item {
        id: Id::IoUringDisabled, name: "kernel.io_uring_disabled", reads: "/proc/sys/kernel/io_uring_disabled", wanted: "0",
        why: "1 forbids it to processes without CAP_SYS_ADMIN that are not in the group kernel.io_uring_group, 2 to all; it is a decision about security, so it is only told",
        evidence: Cited("Linux: Documentation/admin-guide/sysctl/kernel.rst"), shown_by: None, action: Action::Told,
    },
    Item {
        id: Id::LockedMemory, name: "locked memory", reads: "/proc/PID/limits", wanted: "unlimited",
        why: "rings and their buffers count against it, on older kernels and for unprivileged users; where it is short the maintenance thread has no ring and reads through the page cache",
        evidence: Cited("io_uring_setup(2): ENOMEM, RLIMIT_MEMLOCK"), shown_by: None, action: Action::Told,
    },
    Item {
        id: Id::OpenFiles, name: "open files", reads: "/proc/PID/limits", wanted: "1048576",
        why: "each connection needs one, each partition three; segments that do not fit are closed and opened again, connections wait",
        evidence: Cited("README, Limits"), shown_by: Some("bench/compare --rows active, after ulimit -n 2000"), action: Action::Told,
    },
    Item {
        id: Id::Cpuset, name: "cpuset", reads: "/proc/PID/status", wanted: "whole cores",
        why: "a shard is pinned; if somebody else has the other thread of its core, it runs at about half the speed whenever they work",
        evidence: Cited("perftune.py of Seastar takes whole cores"), shown_by: None, action: Action::Told,
    },
    Item {
        id: Id::Quota, name: "CPU quota", reads: "/sys/fs/cgroup/*/cpu.max", wanted: "none",
        why: "a group that has used its quota stands still until its period of 100 ms is over, and with it every connection",
        evidence: Cited("Linux: Documentation/scheduler/sched-bwc.rst"),
        shown_by: Some("corelog bench e2e --rate 5000 against a broker in a cgroup with cpu.max"), action: Action::Told,
    },
    Item {
        id: Id::FileSystem, name: "file system", reads: "/proc/self/mountinfo", wanted: "xfs",
        why: "on XFS a buffered write completes at once; on ext4 io_uring gives it to a worker thread of the kernel, which costs two wake-ups and competes for the core (small ones the shard writes itself, if it has one log directory)",
        evidence: Measured("bench/groups on ext4, 2026-11-22, when shards left small appends to io_uring, too: 110,000 context switches a second (bench/JOURNAL.md)"),
        shown_by: Some("bench/durable --dir, and bench/compare --rows small e2e-small --dir, on either"), action: Action::Told,
    },
    Item {
        id: Id::MountOptions, name: "mount options", reads: "/proc/self/mountinfo", wanted: "noatime or relatime, barriers",
        why: "without barriers a sync returns before the disk has written; with atime every read of a segment writes its inode",
        evidence: Cited("mount(8), ext4(5)"), shown_by: None, action: Action::Told,
    },
    Item {
        id: Id::FreeSpace, name: "free space", reads: "statvfs(3)", wanted: "10 % and 10 GiB",
        why: "a full disk stops producers until there is space; file systems get slow when they are nearly full",
        evidence: Cited("README, Data"), shown_by: None, action: Action::Told,
    },
    Item {
        id: Id::WriteCache, name: "write cache", reads: "/sys/block/*/queue/write_cache", wanted: "write through",
        why: "a disk with a volatile cache has to empty it for each acknowledgement of acks=all; with power-loss protection it need not",
        evidence: Cited("Linux: Documentation/block/writeback_cache_control.rst"), shown_by: Some("bench/durable one"), action: Action::Told,
    },
    Item {
        id: Id::Scheduler, name: "I/O scheduler", reads: "/sys/block/*/queue/scheduler", wanted: "none (NVMe)",
        why: "an NVMe disk has a queue for each core; a scheduler puts them behind one lock and reorders what the disk orders better",
        evidence: Cited("Linux: Documentation/block/blk-mq.rst; Red Hat: Performance tuning guide, disk schedulers"),
        shown_by: Some("bench/durable small wide on an NVMe disk"), action: Action::Written,
    },
    Item {
        id: Id::Governor, name: "CPU governor", reads: "/sys/devices/system/cpu/*/cpufreq/scaling_governor", wanted: "performance",
        why: "a shard sleeps between requests; a clock that has to speed up first shows in every latency at low load",
        evidence: Cited("Linux: Documentation/admin-guide/pm/cpufreq.rst; rpk tuner cpu"),
        shown_by: Some("bench/compare --rows e2e-small, on bare metal"), action: Action::Written,
    },
    Item {
        id: Id::Clocksource, name: "clock source", reads: "/sys/devices/system/clocksource/clocksource0/current_clocksource", wanted: "tsc, or the hypervisor's",
        why: "time is read several times a request: from tsc within the process, from hpet, acpi_pm or xen by a system call or slow I/O",
        evidence: Cited("rpk tuner clocksource; AWS: change the clock source to tsc"),
        shown_by: Some("bench/compare --rows small closed"), action: Action::Written,
    },
    Item {
        id: Id::TimeSync, name: "time sync", reads: "adjtimex(2), /proc/*/comm", wanted: "chrony, ntpd, systemd-timesyncd or a PTP daemon",
        why: "retention by time, indexes by time and LogAppendTime go by this clock",
        evidence: Cited("Kafka: retention by record timestamps (KIP-32, KIP-33)"), shown_by: None, action: Action::Told,
    },
    Item {
        id: Id::Swap, name: "swap", reads: "/proc/swaps", wanted: "none",
        why: "a shard whose memory was swapped out stops, with all its connections, until the disk has brought it back",
        evidence: Cited("Kafka: The Definitive Guide, 2nd edition, chapter 2, virtual memory"), shown_by: None, action: Action::Told,
    },
    Item {
        id: Id::Swappiness, name: "vm.swappiness", reads: "/proc/sys/vm/swappiness", wanted: "1",
        why: "rather give up pages of the cache, which is large here by design, than swap; 0 would invite the OOM killer on old kernels",
        evidence: Cited("Kafka: The Definitive Guide, 2nd edition, chapter 2; Cloudera: Kafka, virtual memory handling"),
        shown_by: None, action: Action::Sysctl(Rule::AtMost(1)),
    },
    Item {
        id: Id::DirtyBackground, name: "vm.dirty_background_ratio", reads: "/proc/sys/vm/dirty_background_ratio", wanted: "5",
        why: "the kernel begins to write early, so that writers do not come to the limit at which they are stopped",
        evidence: Cited("Kafka: The Definitive Guide, 2nd edition, chapter 2"),
        shown_by: Some("bench/compare --rows big --seconds 120, on a machine whose memory does not hold that"),
        action: Action::Sysctl(Rule::DirtyAtMost(5, "/proc/sys/vm/dirty_background_bytes")),
    },
    Item {
        id: Id::Dirty, name: "vm.dirty_ratio", reads: "/proc/sys/vm/dirty_ratio", wanted: "60",
        why: "at this part of memory the kernel stops writers, for tens of milliseconds at a time; bursts should pass below it",
        evidence: Cited("Kafka: The Definitive Guide, 2nd edition, chapter 2"),
        shown_by: Some("bench/compare --rows big --seconds 120, on a machine whose memory does not hold that"),
        action: Action::Sysctl(Rule::DirtyAtLeast(60, "/proc/sys/vm/dirty_bytes")),
    },
    Item {
        id: Id::MapCount, name: "vm.max_map_count", reads: "/proc/sys/vm/max_map_count", wanted: "262144",
        why: "each open segment that was asked whether it is cached has a mapping (mincore); without one its reads take the slow way",
        evidence: Cited("log::file in this repository; Confluent: running Kafka in production"), shown_by: None,
        action: Action::Sysctl(Rule::AtLeast(262_144)),
    },
    Item {
        id: Id::Backlog, name: "net.core.somaxconn", reads: "/proc/sys/net/core/somaxconn", wanted: "4096",
        why: "connections that a shard has not accepted yet; all clients come back at once after a restart",
        evidence: Cited("Linux 5.4 made it the default"), shown_by: Some("corelog bench connections"), action: Action::Sysctl(Rule::AtLeast(4096)),
    },
    Item {
        id: Id::SynBacklog, name: "net.ipv4.tcp_max_syn_backlog", reads: "/proc/sys/net/ipv4/tcp_max_syn_backlog", wanted: "4096",
        why: "connections whose handshake is under way, for the same moment",
        evidence: Cited("Linux: Documentation/networking/ip-sysctl.rst"), shown_by: None, action: Action::Sysctl(Rule::AtLeast(4096)),
    },
    Item {
        id: Id::FlowEntries, name: "net.core.rps_sock_flow_entries", reads: "/proc/sys/net/core/rps_sock_flow_entries", wanted: "32768",
        why: "a packet is worked on by the core whose shard reads the connection, so that its bytes are in the right cache",
        evidence: Cited("Linux: Documentation/networking/scaling.rst, RFS; perftune.py of Seastar"),
        shown_by: Some("corelog bench produce --batch 1 from another machine"), action: Action::Sysctl(Rule::AtLeast(FLOW_ENTRIES)),
    },
    Item {
        id: Id::QueueFlows, name: "rps_flow_cnt", reads: "/sys/class/net/*/queues/rx-*/rps_flow_cnt", wanted: "32768 over all queues of a card",
        why: "net.core.rps_sock_flow_entries has no effect without it",
        evidence: Cited("Linux: Documentation/networking/scaling.rst, RFS"), shown_by: Some("corelog bench produce --batch 1 from another machine"), action: Action::Written,
    },
    Item {
        id: Id::ReceiveBuffer, name: "net.ipv4.tcp_rmem", reads: "/proc/sys/net/ipv4/tcp_rmem", wanted: "up to 16 MiB",
        why: "a connection over 10 Gbit/s and 10 ms has 12 MB on their way; the kernel grows buffers to this at need",
        evidence: Cited("ESnet: Linux host tuning"), shown_by: None, action: Action::Sysctl(Rule::MostAtLeast(16 << 20)),
    },
    Item {
        id: Id::SendBuffer, name: "net.ipv4.tcp_wmem", reads: "/proc/sys/net/ipv4/tcp_wmem", wanted: "up to 16 MiB",
        why: "the same for what consumers fetch",
        evidence: Cited("ESnet: Linux host tuning"), shown_by: None, action: Action::Sysctl(Rule::MostAtLeast(16 << 20)),
    },
    Item {
        id: Id::SlowStart, name: "net.ipv4.tcp_slow_start_after_idle", reads: "/proc/sys/net/ipv4/tcp_slow_start_after_idle", wanted: "0",
        why: "clients keep their connections and fall silent between batches; each burst after a pause would start slowly again",
        evidence: Cited("Linux: Documentation/networking/ip-sysctl.rst; RFC 2861"), shown_by: None, action: Action::Sysctl(Rule::AtMost(0)),
    },
    Item {
        id: Id::Autogroup, name: "kernel.sched_autogroup_enabled", reads: "/proc/sys/kernel/sched_autogroup_enabled", wanted: "0",
        why: "cores are shared between sessions rather than threads: a broker in a session of its own gets no more of a core than any other session's one thread, and wakes up at other moments",
        evidence: Measured("bench/groups, 2026-11-22: a commit cost 29 µs of CPU with broker and generator in sessions of their own, 8-9 µs in one; bench/JOURNAL.md, Consumer groups"),
        shown_by: Some("bench/groups; bench/compare --rows small e2e-small"), action: Action::Sysctl(Rule::AtMost(0)),
    },
    Item {
        id: Id::Numa, name: "NUMA nodes", reads: "/sys/class/net/*/device/numa_node, /sys/block/*/device/numa_node", wanted: "card and disk on one node",
        why: "what arrives at one node and is written by the other crosses the link between them",
        evidence: Cited("Intel: NUMA, I/O devices and memory"), shown_by: None, action: Action::Told,
    },
    Item {
        id: Id::IrqAffinity, name: "interrupts", reads: "/proc/irq/*/smp_affinity_list", wanted: "on CPUs of their own (5 CPUs or more), else spread",
        why: "an interrupt takes its CPU from the shard that is pinned there, and all its connections wait",
        evidence: Cited("perftune.py of Seastar; Linux: Documentation/core-api/irq/irq-affinity.rst"),
        shown_by: Some("corelog bench e2e from another machine, p99"), action: Action::Written,
    },
    Item {
        id: Id::Irqbalance, name: "irqbalance", reads: "/proc/*/comm", wanted: "not running, or told to leave these interrupts",
        why: "it moves interrupts every ten seconds, also those that were placed with care",
        evidence: Cited("irqbalance(1), --banirq and IRQBALANCE_BANNED_CPULIST"), shown_by: None, action: Action::Told,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_stands_once_and_in_order_with_its_reason() {
        assert!(ITEMS.windows(2).all(|pair| pair[0].id < pair[1].id), "in the order of Id, each once");
        assert_eq!(ITEMS.len(), Id::Irqbalance as usize + 1, "each id has an item");
        for entry in ITEMS {
            assert_eq!(item(entry.id).name, entry.name);
            let (Measured(source) | Cited(source)) = entry.evidence;
            assert!(entry.why.len() > 20 && source.len() > 8 && !entry.wanted.is_empty(), "{}", entry.name);
            assert!(!matches!(entry.evidence, Measured(_)) || source.contains("bench/"), "{}", entry.name);
            assert!(
                !matches!(entry.action, Action::Sysctl(_)) || entry.reads.starts_with("/proc/sys/"),
                "{}",
                entry.name
            );
        }
    }
}

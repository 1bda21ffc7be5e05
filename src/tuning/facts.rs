//! What was found on a machine. Only data: `gather` fills it, `check` and `plan` decide by it.

use super::cpus::Cpus;
use std::collections::BTreeMap;

/// Something that was looked for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Reading<T> {
    Known(T),
    /// This machine does not have it: no such file.
    #[default]
    Absent,
    /// It is there and cannot be read or understood; the text says why.
    Unknown(String),
}

impl<T> Reading<T> {
    pub fn known(&self) -> Option<&T> {
        match self {
            Reading::Known(value) => Some(value),
            Reading::Absent | Reading::Unknown(_) => None,
        }
    }

    /// Reads on: what cannot be understood is unknown.
    pub fn and_then<U>(self, read: impl FnOnce(T) -> Result<U, String>) -> Reading<U> {
        match self {
            Reading::Known(value) => read(value).map_or_else(Reading::Unknown, Reading::Known),
            Reading::Absent => Reading::Absent,
            Reading::Unknown(why) => Reading::Unknown(why),
        }
    }

    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Reading<U> {
        self.and_then(|value| Ok(change(value)))
    }
}

/// What came of asking the kernel for a small io_uring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Ring {
    /// The facts are of another root: this process's kernel says nothing about them.
    #[default]
    NotTried,
    Works,
    /// The number of the error.
    Refused(i32),
}

/// Everything that is looked at.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub kernel: Reading<String>,
    pub ring: Ring,
    pub process: Process,
    /// Nodes that run: the CPUs that their shards are pinned to, by process.
    pub nodes: Vec<(u32, Cpus)>,
    pub online: Reading<Cpus>,
    /// Online CPUs, in order; empty where that cannot be found out.
    pub cpus: Vec<Cpu>,
    pub memory_bytes: Reading<u64>,
    /// Values of files below /proc/sys, as they were read, by path.
    pub sysctls: BTreeMap<&'static str, Reading<String>>,
    pub dirs: Vec<DataDir>,
    /// The disks under the data directories, each once.
    pub disks: Vec<Disk>,
    pub nics: Vec<Nic>,
    pub irqs: BTreeMap<u32, Irq>,
    /// Governors of the CPUs that have one, and what they offer.
    pub governors: Vec<Governor>,
    /// The clock source in use, and those to choose from.
    pub clocksource: Reading<(String, Vec<String>)>,
    pub swaps: Reading<Vec<Swap>>,
    /// The process that runs irqbalance.
    pub irqbalance: Reading<Option<u32>>,
    /// Whether the kernel's clock is kept right by somebody, and the daemons that were seen.
    pub clock_synchronized: Reading<bool>,
    pub time_daemons: Vec<String>,
}

/// The process that stands for the node: a running one, else this one.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// None: this process, and with it the shell that it was started from.
    pub node: Option<u32>,
    /// The hard limit, to which a node raises its own; None: unlimited.
    pub open_files: Reading<Option<u64>>,
    /// The soft limit, bytes: a node does not raise it; None: unlimited.
    pub locked_memory: Reading<Option<u64>>,
    pub allowed: Reading<Cpus>,
    /// 2: a filter of system calls. Always of this process.
    pub seccomp: Reading<u64>,
    /// CPUs' worth of time that its cgroups allow; None: no quota.
    pub quota: Reading<Option<f64>>,
    /// Whether it may lock memory beyond limits and write settings: effective capabilities.
    pub capabilities: Reading<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    pub id: usize,
    pub package: usize,
    /// Unique within its package.
    pub core: usize,
    /// NUMA node.
    pub node: usize,
}

/// A data directory, or where it would be made.
#[derive(Clone, Debug)]
pub struct DataDir {
    pub path: String,
    pub mount: Reading<Mount>,
    pub space: Reading<Space>,
    /// Names of disks below it.
    pub disks: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// MAJOR:MINOR
    pub device: String,
    pub point: String,
    pub kind: String,
    pub source: String,
    pub options: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub free_bytes: u64,
    pub total_bytes: u64,
}

#[derive(Clone, Debug)]
pub struct Disk {
    pub name: String,
    /// As it was read: `none [mq-deadline]`.
    pub scheduler: Reading<String>,
    pub write_cache: Reading<String>,
    pub numa_node: Reading<i64>,
    pub irqs: Vec<u32>,
}

impl Disk {
    pub fn is_nvme(&self) -> bool {
        self.name.starts_with("nvme")
    }
}

#[derive(Clone, Debug)]
pub struct Nic {
    pub name: String,
    pub numa_node: Reading<i64>,
    pub irqs: Vec<u32>,
    /// `rps_flow_cnt` of each receive queue, by the queue's name.
    pub flows: Vec<(String, Reading<String>)>,
}

#[derive(Clone, Debug)]
pub struct Irq {
    /// `smp_affinity_list`, as it was read.
    pub wanted: Reading<String>,
    /// `effective_affinity_list`; `wanted` on kernels without it.
    pub effective: Reading<Cpus>,
    /// The kernel has taken write permission away: it places this interrupt itself.
    pub managed: bool,
}

#[derive(Clone, Debug)]
pub struct Governor {
    pub cpu: usize,
    pub current: Reading<String>,
    pub available: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    pub name: String,
    pub bytes: u64,
}

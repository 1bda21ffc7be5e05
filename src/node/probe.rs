//! What a start prints: what was found on the machine, what is worth changing, and what to do next.

use super::format::Opened;
use crate::base::host::{self, FileSystem, IoUring};
use crate::base::ids::NodeId;
use crate::base::show::show_bytes;
use std::path::PathBuf;

/// Descriptors that a node needs beside its partitions and connections.
const OPEN_FILES_LOW: u64 = 10_000;
/// What the rings and registered buffers of a shard lock at most, before Linux 5.12 and cgroups.
const LOCKED_MEMORY_LOW_BYTES: u64 = 64 << 20;
/// Since then rings are charged to the memory cgroup, and the limit of locked memory does not matter.
const RINGS_CHARGED_TO_CGROUPS: (u32, u32) = (5, 12);
/// Free space below which a start says so.
const FREE_LOW_BYTES: u64 = 1 << 30;

/// A start after a crash may hold this part of the memory for journals before it is warned of.
const JOURNALS_IN_MEMORY_PART: u64 = 4;

/// What the machine offers, as found at the start.
#[derive(Clone, Debug)]
pub struct Probe {
    pub kernel: String,
    pub io_uring: IoUring,
    /// The cores that this process may use.
    pub cores: Vec<usize>,
    pub locked_memory_bytes: Option<u64>,
    pub memory_bytes: u64,
    /// The limit of open files, raised as far as it goes.
    pub open_files: u64,
    /// Each data directory with its file system, or why that could not be found out.
    pub dirs: Vec<(PathBuf, Result<FileSystem, String>)>,
}

impl Probe {
    /// Looks at the machine; raises the limit of open files.
    pub fn new(dirs: impl IntoIterator<Item = PathBuf>) -> Probe {
        let look = |dir: PathBuf| {
            let found = host::file_system_of(&dir).map_err(|error| error.to_string());
            (dir, found)
        };
        Probe {
            kernel: host::kernel_release(),
            io_uring: host::probe_io_uring(),
            cores: host::allowed_cores(),
            locked_memory_bytes: host::locked_memory_bytes(),
            memory_bytes: host::memory_bytes(),
            open_files: host::raise_open_files(),
            dirs: dirs.into_iter().map(look).collect(),
        }
    }

    /// Why this machine cannot run a node at all.
    pub fn obstacle(&self) -> Option<String> {
        match &self.io_uring {
            IoUring::Usable => None,
            IoUring::Unusable(why) => Some(format!("io_uring cannot be used: {why}")),
        }
    }

    /// One line for each thing that was found; `used` are the cores that the node runs on.
    pub fn findings(&self, used: &[usize]) -> Vec<String> {
        let ring = match &self.io_uring {
            IoUring::Usable => "usable".to_owned(),
            IoUring::Unusable(why) => format!("not usable: {why}"),
        };
        let memory = self.locked_memory_bytes.map_or_else(|| "unlimited".to_owned(), show_bytes);
        let cores = match ranges(used) {
            used if used == ranges(&self.cores) => format!("cores {used}"),
            used => format!("cores {used} (of {})", ranges(&self.cores)),
        };
        let mut lines = vec![
            format!("kernel {}, io_uring {ring}", self.kernel),
            format!("{cores}, locked memory {memory}, open files {}", self.open_files),
        ];
        lines.extend(self.dirs.iter().map(|(dir, found)| match found {
            Ok(fs) => format!(
                "data in {}: {} on {}, {} of {} free",
                dir.display(),
                fs.kind,
                fs.mount_point.display(),
                show_bytes(fs.free_bytes),
                show_bytes(fs.total_bytes)
            ),
            Err(error) => format!("data in {}: {error}", dir.display()),
        }));
        lines
    }

    /// One line for each thing that is worth changing. `journals_bytes`: of all shards in all directories.
    pub fn advice(&self, journals_bytes: u64) -> Vec<String> {
        let mut lines = Vec::new();
        if journals_bytes > self.memory_bytes / JOURNALS_IN_MEMORY_PART {
            lines.push(format!(
                "the journals are {} together, and a start after a crash holds them in memory, of which there is {}: lower log.journal.bytes",
                show_bytes(journals_bytes),
                show_bytes(self.memory_bytes)
            ));
        }
        if self.open_files < OPEN_FILES_LOW {
            lines.push(format!(
                "only {} open files: each partition needs three and each connection one; raise the hard limit (ulimit -Hn)",
                self.open_files
            ));
        }
        let is_old = version(&self.kernel).is_none_or(|version| version < RINGS_CHARGED_TO_CGROUPS);
        if is_old && self.locked_memory_bytes.is_some_and(|bytes| bytes < LOCKED_MEMORY_LOW_BYTES) {
            lines
                .push("little memory may be locked, which io_uring needs on older kernels: ulimit -l unlimited".into());
        }
        for (dir, fs) in self.dirs.iter().filter_map(|(dir, found)| Some((dir, found.as_ref().ok()?))) {
            let dir = dir.display();
            match fs.kind.as_str() {
                "xfs" => {}
                "tmpfs" | "ramfs" => lines.push(format!("{dir} is on {}: all data is lost at a reboot", fs.kind)),
                "ext4" => {
                    lines.push(format!("{dir} is on ext4, which works; XFS is preferred: its appends block less"))
                }
                "overlay" => lines.push(format!("{dir} is on a container's own layer: mount a volume there")),
                kind if kind.starts_with("nfs") || kind == "cifs" || kind.starts_with("fuse") => {
                    lines.push(format!("{dir} is on {kind}, which is not tried; use a local XFS"));
                }
                kind => lines.push(format!("{dir} is on {kind}; XFS is preferred")),
            }
            if fs.has_no_barriers() {
                lines.push(format!("{dir} is mounted without barriers: a power cut may take what was acknowledged"));
            }
            if fs.free_bytes < FREE_LOW_BYTES {
                lines.push(format!("{dir} has only {} free", show_bytes(fs.free_bytes)));
            }
        }
        lines
    }
}

/// What was opened, in one line.
pub fn opened_line(opened: &Opened) -> String {
    let formatted = if opened.freshly_formatted { ", formatted now" } else { "" };
    let unclean = opened.dirs.iter().filter(|dir| !dir.was_clean).count();
    let recovery = match unclean {
        0 => String::new(),
        _ => format!(", {unclean} of {} directories to recover", opened.dirs.len()),
    };
    let NodeId(node) = opened.node_id;
    let shards = count(usize::from(opened.shards), "shard");
    format!("cluster {}, node {node}, {shards}{formatted}{recovery}", opened.cluster_id)
}

/// What to type next, with the address of the first shard.
pub fn next_steps(host: &str, port: u16) -> Vec<String> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    vec![
        format!("list     kcat -b {host}:{port} -L"),
        format!("produce  echo hello | kcat -b {host}:{port} -t greetings -P"),
        format!("consume  kcat -b {host}:{port} -t greetings -C -o beginning -e"),
    ]
}

/// `1 shard`, `2 shards`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Major and minor of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// `0-3,8`: the cores as taskset would take them.
fn ranges(cores: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for core in cores {
        match parts.last_mut() {
            Some((_, end)) if *end + 1 == *core => *end = *core,
            _ => parts.push((*core, *core)),
        }
    }
    let texts: Vec<String> = parts
        .iter()
        .map(|(start, end)| if start == end { start.to_string() } else { format!("{start}-{end}") })
        .collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(kind: &str, free_bytes: u64) -> Probe {
        let fs = FileSystem {
            kind: kind.into(),
            mount_point: "/data".into(),
            options: "rw".into(),
            free_bytes,
            total_bytes: 4 << 40,
        };
        Probe {
            kernel: "6.1.0".into(),
            io_uring: IoUring::Usable,
            cores: vec![0, 1, 2, 5],
            locked_memory_bytes: None,
            memory_bytes: 64 << 30,
            open_files: 1_000_000,
            dirs: vec![("/data/corelog".into(), Ok(fs))],
        }
    }

    #[test]
    fn a_good_machine_is_told_and_left_alone() {
        let probe = probe("xfs", 3 << 40);
        assert_eq!(
            probe.findings(&[0, 1, 2, 5]),
            [
                "kernel 6.1.0, io_uring usable",
                "cores 0-2,5, locked memory unlimited, open files 1000000",
                "data in /data/corelog: xfs on /data, 3.0 TiB of 4.0 TiB free",
            ]
        );
        assert!(probe.findings(&[2])[1].starts_with("cores 2 (of 0-2,5), "), "those that --cores chose");
        assert_eq!(probe.advice(16 << 30), [""; 0]);
        assert_eq!(probe.obstacle(), None);
    }

    #[test]
    fn what_is_worth_changing_is_told() {
        assert!(probe("ext4", 3 << 40).advice(0)[0].contains("XFS is preferred"));
        assert!(probe("tmpfs", 3 << 40).advice(0)[0].contains("lost at a reboot"));
        assert!(probe("xfs", 5 << 20).advice(0)[0].contains("only 5.0 MiB free"));
        let poor = Probe { open_files: 1024, locked_memory_bytes: Some(8 << 20), ..probe("xfs", 3 << 40) };
        assert_eq!(poor.advice(0).len(), 1, "locked memory does not matter to this kernel");
        let old = Probe { kernel: "5.11.0-34-generic".into(), ..poor };
        assert_eq!(old.advice(0).len(), 2);
        let much = "the journals are 17.0 GiB together, and a start after a crash holds them in memory, of which there is 64.0 GiB";
        assert!(probe("xfs", 3 << 40).advice(17 << 30)[0].starts_with(much));
        let closed = Probe { io_uring: IoUring::Unusable("because".into()), ..probe("xfs", 3 << 40) };
        assert_eq!(closed.obstacle().as_deref(), Some("io_uring cannot be used: because"));
    }

    #[test]
    fn commands_bear_the_real_address() {
        assert!(next_steps("::1", 9092)[0].ends_with("kcat -b [::1]:9092 -L"));
        assert!(next_steps("node1", 9093)[1].contains("-b node1:9093 -t greetings -P"));
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let probe = Probe::new([PathBuf::from(".")]);
        assert_eq!(probe.findings(&[0]).len(), 3);
    }
}

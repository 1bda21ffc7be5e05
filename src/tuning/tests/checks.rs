//! What `corelog check` says of machines of each kind.

use super::machine::{BARE_METAL, CLOUD_VM, CONTAINER, Machine};
use crate::tuning::check::{Line, Verdict, check, placement};
use crate::tuning::facts::{Facts, Reading, Ring};
use crate::tuning::gather::Live;
use crate::tuning::plan::plan;

/// Lines as `VERDICT name of subject: current`, without those that depend on the machine that runs the test.
fn told(facts: &Facts) -> Vec<String> {
    let lines = check(facts, &placement(facts, None));
    lines.iter().filter(|line| line.item.name != "free space").map(show).collect()
}

fn show(line: &Line) -> String {
    let Line { item, subject, verdict, current, .. } = line;
    let of = if subject.is_empty() { String::new() } else { format!(" of {subject}") };
    format!("{verdict} {}{of}: {current}", item.name)
}

fn assert_told(facts: &Facts, expected: &[&str]) {
    let told = told(facts);
    for line in expected {
        assert!(told.iter().any(|found| found == line), "no line {line:?} in\n{}", told.join("\n"));
    }
}

#[test]
fn a_server_as_the_distribution_leaves_it() {
    let machine = Machine::new(BARE_METAL);
    let facts = machine.facts_with(Live { ring: Ring::Works, clock_synchronized: Reading::Known(true) });
    assert_told(
        &facts,
        &[
            "pass kernel: 6.8.0-45-generic",
            "pass io_uring: allowed",
            "warn locked memory: 8.0 MiB, of this shell",
            "pass open files: 1048576, of this shell",
            "pass cpuset: all CPUs, 0-63",
            "pass CPU quota: none",
            "pass file system of /data/corelog: xfs on /data (/dev/mapper/vg-data)",
            "pass mount options of /data/corelog: noatime",
            "pass write cache of nvme0n1: write through",
            "warn I/O scheduler of nvme0n1: mq-deadline",
            "warn CPU governor: powersave on CPUs 0-63",
            "pass clock source: tsc",
            "pass time sync: synchronized, chronyd runs",
            "warn swap: /dev/dm-1",
            "warn vm.swappiness: 60",
            "pass net.core.somaxconn: 4096",
            "pass net.ipv4.tcp_max_syn_backlog: 65536",
            "warn net.ipv4.tcp_rmem: 4096 131072 6291456",
            "warn rps_flow_cnt of eth0: 0 in each of 2 queues",
            "warn kernel.sched_autogroup_enabled: 1",
            "warn NUMA nodes: eth0 on node 0; nvme0n1 on node 1",
            "warn interrupts of eth0: 8 on CPUs 0-63, where shards are",
            "warn interrupts of nvme0n1: 4 on CPUs 0-63, where shards are",
            "warn irqbalance: process 801",
        ],
    );
    assert!(!told(&facts).iter().any(|line| line.starts_with("FAIL")), "it would work: nothing fails");
    assert_eq!(facts.nics.len(), 1, "neither lo nor what is down");
}

#[test]
fn a_container_is_told_what_its_seccomp_profile_forbids() {
    let machine = Machine::new(CONTAINER);
    let with = |errno| machine.facts_with(Live { ring: Ring::Refused(errno), clock_synchronized: Reading::Absent });
    assert_told(
        &with(libc::EPERM),
        &[
            "FAIL io_uring: EPERM: a seccomp profile without io_uring, such as Docker's default",
            "warn locked memory: 64.0 KiB, of this shell",
            "warn cpuset: CPUs 0-3, 4 of 8; the other thread of 0-3 is somebody else's",
            "warn CPU quota: 2.00 CPUs for 4",
            "warn file system of /data/corelog: overlay on / (overlay)",
            "n/a I/O scheduler: no disk was found below the data directories",
            "n/a CPU governor: no CPU has one: a hypervisor or the firmware sets the clock",
            "n/a net.core.rps_sock_flow_entries: this kernel does not have it",
            "pass swap: none",
            "warn time sync: no daemon was seen",
        ],
    );
    let enosys = "FAIL io_uring: ENOSYS: a seccomp profile without io_uring, or a kernel without it";
    assert_told(&with(libc::ENOSYS), &[enosys]);
    machine.set("/proc/sys/kernel/io_uring_disabled", "2\n");
    let disabled = "FAIL io_uring: EPERM: kernel.io_uring_disabled is 2";
    assert_told(&with(libc::EPERM), &[disabled, "FAIL kernel.io_uring_disabled: 2: for nobody"]);
    machine.set("/proc/sys/kernel/io_uring_disabled", "0\n");
    machine.set("/proc/self/status", "Seccomp:\t0\n");
    assert_told(&with(libc::ENOSYS), &["FAIL io_uring: ENOSYS: this kernel has no io_uring"]);
    assert_told(&with(libc::EPERM), &["FAIL io_uring: EPERM: a security module or a sandbox forbids it"]);
}

#[test]
fn a_virtual_machine_with_a_node_that_runs() {
    let machine = Machine::new(CLOUD_VM);
    let facts = machine.facts();
    assert_told(
        &facts,
        &[
            "warn kernel: 5.15.0-1051-aws",
            "n/a io_uring: not tried: this is another machine's root",
            "n/a kernel.io_uring_disabled: kernels before 6.6 do not have it",
            "pass locked memory: unlimited, of the node, process 900",
            "warn open files: 100000, of the node, process 900",
            "warn file system of /data/corelog: ext4 on / (/dev/vda1)",
            "warn write cache of vda: write back: emptied for each acknowledgement of acks=all",
            "n/a I/O scheduler of vda: mq-deadline; it is no NVMe disk",
            "warn clock source: xen",
            "pass time sync: systemd-timesyn runs",
            "pass swap: only compressed memory, /dev/zram0",
            "pass vm.dirty_ratio: 60",
            "pass kernel.sched_autogroup_enabled: 0",
            "pass rps_flow_cnt of eth0: 32768 in each of 1 queues",
            "n/a interrupts of vda: managed: the kernel places them itself",
            "warn interrupts of eth0: 2 on CPUs 0, where shards are",
            "pass irqbalance: does not run, as far as can be seen",
        ],
    );
    let nodes: Vec<_> = facts.nodes.iter().map(|(pid, cpus)| (*pid, cpus.to_string())).collect();
    assert_eq!(nodes, [(900, "0,2".to_owned())], "process 950 is some other command");
    assert_eq!(placement(&facts, None).irqs.to_string(), "1,3", "what its shards leave");
    let chosen = "1-3".parse().expect("a list");
    assert_eq!(placement(&facts, Some(&chosen)).irqs.to_string(), "0", "what was asked for counts more");
}

#[test]
fn of_each_limit_the_one_counts_that_a_node_has() {
    let machine = Machine::new(BARE_METAL);
    machine.set("/proc/self/limits", "Max locked memory 8388608 unlimited bytes\nMax open files 1024 1048576 files\n");
    let facts = machine.facts();
    assert_told(&facts, &["warn locked memory: 8.0 MiB, of this shell", "pass open files: 1048576, of this shell"]);
    machine.set("/proc/self/limits", "Max locked memory unlimited unlimited bytes\nMax open files 1024 1024 files\n");
    let facts = machine.facts();
    assert_told(&facts, &["pass locked memory: unlimited, of this shell", "warn open files: 1024, of this shell"]);
}

#[test]
fn one_cpu_for_shards_is_told_so_that_it_is_no_count() {
    let facts = Machine::new(CLOUD_VM).facts();
    let one = "0-0".parse().expect("a list");
    let placement = placement(&facts, Some(&one));
    let fixes: Vec<_> = check(&facts, &placement).into_iter().map(|line| line.fix).collect();
    assert!(fixes.iter().any(|fix| fix.ends_with("run the node with --cores 0-0")), "{fixes:?}");
    let notes: Vec<_> = plan(&facts, &placement).notes.into_iter().map(|note| note.text).collect();
    let told = "the node with process 900 has shards on 0,2: start it with --cores 0-0".to_owned();
    assert!(notes.contains(&told), "{notes:?}");
}

#[test]
fn file_systems_that_lose_data_fail() {
    let machine = Machine::new(BARE_METAL);
    let mounted = |rest: &str| {
        machine.set("/proc/self/mountinfo", format!("1 0 259:2 / / rw - ext4 x rw\n2 1 0:50 / /data {rest}\n"));
        told(&machine.facts())
    };
    let has = |lines: Vec<String>, start: &str| {
        assert!(lines.iter().any(|line| line.starts_with(start)), "{start}: {}", lines.join("\n"));
    };
    has(
        mounted("rw,relatime - tmpfs tmpfs rw"),
        "FAIL file system of /data/corelog: tmpfs on /data (tmpfs): all is lost",
    );
    has(mounted("rw,relatime - ext4 /dev/x rw,nobarrier"), "FAIL mount options of /data/corelog: no barriers");
    has(mounted("ro,relatime - xfs /dev/x rw"), "FAIL mount options of /data/corelog: ro");
    has(mounted("rw - xfs /dev/x rw"), "warn mount options of /data/corelog: atime");
    has(mounted("rw,noatime - btrfs /dev/x rw"), "warn file system of /data/corelog: btrfs");
    has(mounted("rw,noatime - nfs4 host:/x rw"), "warn file system of /data/corelog: nfs4");
}

#[test]
fn this_machine_can_be_looked_at() {
    let root = crate::tuning::files::Root::open(std::path::Path::new("/")).expect("there is a root");
    let here = std::path::absolute(".").expect("a directory").to_string_lossy().into_owned();
    let wish = crate::tuning::gather::Wish { data_dirs: vec![here], nics: Vec::new() };
    let facts = crate::tuning::gather::gather(&root, Live::default(), &wish);
    let lines = check(&facts, &placement(&facts, None));
    let kernel = lines.iter().find(|line| line.item.name == "kernel").expect("it is told");
    assert_eq!(kernel.current, crate::base::host::kernel_release());
    assert!(!facts.cpus.is_empty() && lines.iter().any(|line| line.verdict == Verdict::Pass));
}

//! Disks and network cards in sysfs: from a mount to the disks below it, and from each to its interrupts.

use super::facts::{Disk, Mount, Nic, Reading};
use super::files::Files;
use super::gather::{number, text, word};
use crate::base::limits::{TUNING_DEVICE_DEPTH_MAX, TUNING_DEVICES_MAX};

/// Names of the disks below a mount: through partitions, LVM, dm-crypt and RAID.
pub(super) fn disks_of(files: &dyn Files, mount: &Mount) -> Vec<String> {
    let mut disks = Vec::new();
    // File systems over several disks (btrfs) have numbers of their own; their source is one of the disks.
    let by_number = files.link(&format!("/sys/dev/block/{}", mount.device)).ok();
    let by_source = || {
        let device = mount.source.strip_prefix("/dev/").filter(|name| is_plain(name))?;
        files.link(&format!("/sys/class/block/{device}")).ok()
    };
    if let Some(link) = by_number.or_else(by_source) {
        descend(files, &link, TUNING_DEVICE_DEPTH_MAX, &mut disks);
    }
    disks
}

/// `link` leads to a block device: `../../devices/…/nvme0n1/nvme0n1p1`.
fn descend(files: &dyn Files, link: &str, depth: usize, disks: &mut Vec<String>) {
    let mut parts = link.rsplit('/').filter(|part| is_plain(part));
    let Some(name) = parts.next() else { return };
    let is_partition = text(files, &format!("/sys/class/block/{name}/partition")) != Reading::Absent;
    let Some(disk) = (if is_partition { parts.next() } else { Some(name) }) else { return };
    let below = files.list(&format!("/sys/class/block/{disk}/slaves")).unwrap_or_default();
    for slave in below.iter().filter(|_| depth > 0) {
        if let Ok(link) = files.link(&format!("/sys/class/block/{slave}")) {
            descend(files, &link, depth - 1, disks);
        }
    }
    if below.is_empty() && disks.len() < TUNING_DEVICES_MAX && disks.iter().all(|known| known != disk) {
        disks.push(disk.to_owned());
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains('/')
}

pub(super) fn disk(files: &dyn Files, name: &str) -> Disk {
    let dir = format!("/sys/class/block/{name}");
    Disk {
        name: name.to_owned(),
        scheduler: text(files, &format!("{dir}/queue/scheduler")),
        write_cache: word(files, &format!("{dir}/queue/write_cache")),
        numa_node: numa_node(files, &format!("{dir}/device")),
        irqs: irqs(files, &format!("{dir}/device")),
    }
}

/// Network cards that are up and have hardware, or those that were asked for.
pub(super) fn nics(files: &dyn Files, asked: &[String]) -> Vec<Nic> {
    let names = files.list("/sys/class/net").unwrap_or_default();
    let is_up = |name: &str| {
        let dir = format!("/sys/class/net/{name}");
        files.link(&format!("{dir}/device")).is_ok()
            && word(files, &format!("{dir}/operstate")).known().is_some_and(|state| state == "up" || state == "unknown")
    };
    let wanted = names.iter().filter(|name| match asked {
        [] => is_up(name),
        asked => asked.contains(name),
    });
    wanted.take(TUNING_DEVICES_MAX).map(|name| nic(files, name)).collect()
}

fn nic(files: &dyn Files, name: &str) -> Nic {
    let dir = format!("/sys/class/net/{name}");
    let queues = files.list(&format!("{dir}/queues")).unwrap_or_default();
    let flows = queues.into_iter().filter(|queue| queue.starts_with("rx-"));
    let flows = flows.map(|queue| {
        let count = text(files, &format!("{dir}/queues/{queue}/rps_flow_cnt"));
        (queue, count)
    });
    Nic {
        name: name.to_owned(),
        numa_node: numa_node(files, &format!("{dir}/device")),
        irqs: irqs(files, &format!("{dir}/device")),
        flows: flows.collect(),
    }
}

/// The device itself, and what it hangs on: an NVMe namespace and a virtio device are one and two steps from their PCI device.
fn up(device: &str) -> [String; 3] {
    [device.to_owned(), format!("{device}/device"), format!("{device}/..")]
}

fn numa_node(files: &dyn Files, device: &str) -> Reading<i64> {
    let found = up(device).into_iter().map(|dir| number(files, &format!("{dir}/numa_node")));
    found.into_iter().find(|node| *node != Reading::Absent).unwrap_or_default()
}

/// The numbers of a device's interrupts, in order.
fn irqs(files: &dyn Files, device: &str) -> Vec<u32> {
    let listed = up(device).into_iter().find_map(|dir| files.list(&format!("{dir}/msi_irqs")).ok());
    let mut irqs: Vec<u32> = match listed {
        Some(names) => names.iter().filter_map(|name| name.parse().ok()).collect(),
        // One line that several devices may share.
        None => number(files, &format!("{device}/irq")).known().copied().filter(|irq| *irq > 0).into_iter().collect(),
    };
    irqs.sort_unstable();
    // Those that are in use: a device may have asked for more.
    irqs.retain(|irq| text(files, &format!("/proc/irq/{irq}/smp_affinity_list")) != Reading::Absent);
    irqs
}

//! File systems and disks under the data directories.

use super::Lines;
use crate::base::show::show_bytes;
use crate::tuning::facts::{DataDir, Disk, Facts, Mount, Space};
use crate::tuning::items::Id;
use crate::tuning::parse;

/// One segment of the default size does not fit any more.
const FREE_MIN_BYTES: u64 = 1 << 30;
const FREE_GOOD_BYTES: u64 = 10 << 30;
const FREE_GOOD_PART: u64 = 10;

pub(super) fn check(facts: &Facts, lines: &mut Lines) {
    for dir in &facts.dirs {
        if let Some(mount) = lines.known(Id::FileSystem, &dir.path, &dir.mount) {
            file_system(dir, mount, lines);
            mount_options(dir, mount, lines);
        }
        if let Some(space) = lines.known(Id::FreeSpace, &dir.path, &dir.space) {
            free_space(dir, *space, lines);
        }
    }
    for disk in &facts.disks {
        write_cache(disk, lines);
        scheduler(disk, lines);
    }
    if facts.disks.is_empty() {
        for id in [Id::WriteCache, Id::Scheduler] {
            lines.not_applicable(id, "", "no disk was found below the data directories");
        }
    }
}

fn file_system(dir: &DataDir, mount: &Mount, lines: &mut Lines) {
    let kind = mount.kind.as_str();
    let current = format!("{kind} on {} ({})", mount.point, mount.source);
    let xfs = "put it on XFS (mkfs.xfs on a disk or volume of its own)";
    match kind {
        "xfs" => lines.pass(Id::FileSystem, &dir.path, current),
        "tmpfs" | "ramfs" => {
            lines.fail(Id::FileSystem, &dir.path, format!("{current}: all is lost at a reboot"), xfs);
        }
        "overlay" => {
            let fix = "mount a volume there: what a container keeps in its own layer is lost with it";
            lines.warn(Id::FileSystem, &dir.path, current, fix);
        }
        "btrfs" | "zfs" | "bcachefs" | "nilfs2" => {
            let what = "copy-on-write: acknowledgements wait for a sync of each partition, without the journal";
            lines.warn(Id::FileSystem, &dir.path, format!("{current}, {what}"), xfs);
        }
        kind if kind.starts_with("nfs")
            || kind.starts_with("fuse")
            || ["cifs", "smb3", "9p", "ceph"].contains(&kind) =>
        {
            lines.warn(
                Id::FileSystem,
                &dir.path,
                format!("{current}, with which nothing is tried"),
                "use a local disk with XFS",
            );
        }
        _ => lines.warn(Id::FileSystem, &dir.path, current, xfs),
    }
}

fn mount_options(dir: &DataDir, mount: &Mount, lines: &mut Lines) {
    let has = |option: &str| mount.options.iter().any(|found| found == option);
    let remount = |option: &str| format!("mount -o remount,{option} {} and /etc/fstab", mount.point);
    let (id, path) = (Id::MountOptions, dir.path.as_str());
    if has("ro") {
        lines.fail(id, path, "ro: nothing can be written", remount("rw"));
    } else if has("nobarrier") || has("barrier=0") {
        lines.fail(id, path, "no barriers: a power cut takes what was acknowledged", remount("barrier=1"));
    } else if has("data=writeback") {
        let what = "data=writeback: after a crash files may hold what was never written; the journal is not used";
        lines.warn(id, path, what, "data=ordered in /etc/fstab");
    } else if has("sync") || has("dirsync") {
        lines.warn(id, path, "sync: each write waits for the disk", remount("async"));
    } else if !has("noatime") && !has("relatime") {
        lines.warn(id, path, "atime: reading a segment writes its inode", remount("noatime"));
    } else {
        lines.pass(id, path, if has("noatime") { "noatime" } else { "relatime" });
    }
}

fn free_space(dir: &DataDir, space: Space, lines: &mut Lines) {
    let Space { free_bytes, total_bytes } = space;
    let current = format!("{} of {}", show_bytes(free_bytes), show_bytes(total_bytes));
    let fix = "another disk (log.dirs), shorter retention, or a larger disk";
    if free_bytes < FREE_MIN_BYTES {
        lines.fail(Id::FreeSpace, &dir.path, current, fix);
    } else if free_bytes < FREE_GOOD_BYTES || free_bytes < total_bytes / FREE_GOOD_PART {
        lines.warn(Id::FreeSpace, &dir.path, current, fix);
    } else {
        lines.pass(Id::FreeSpace, &dir.path, current);
    }
}

fn write_cache(disk: &Disk, lines: &mut Lines) {
    let Some(cache) = lines.known(Id::WriteCache, &disk.name, &disk.write_cache) else { return };
    match cache.as_str() {
        "write through" => lines.pass(Id::WriteCache, &disk.name, cache),
        "write back" => {
            let fix = "nothing to set: take disks with power-loss protection where acks=all has to be quick. Never write to this file: \
                it would only keep the kernel from emptying the cache";
            lines.warn(Id::WriteCache, &disk.name, "write back: emptied for each acknowledgement of acks=all", fix);
        }
        other => lines.unknown(Id::WriteCache, &disk.name, &format!("the value {:?}", parse::shortened(other))),
    }
}

fn scheduler(disk: &Disk, lines: &mut Lines) {
    let Some(text) = lines.known(Id::Scheduler, &disk.name, &disk.scheduler) else { return };
    match parse::selected(text) {
        Err(why) => lines.unknown(Id::Scheduler, &disk.name, &why),
        Ok(chosen) if !disk.is_nvme() => {
            lines.not_applicable(Id::Scheduler, &disk.name, format!("{chosen}; it is no NVMe disk"));
        }
        Ok("none") => lines.pass(Id::Scheduler, &disk.name, "none"),
        Ok(chosen) => {
            let fix = format!("corelog tune apply, or echo none > /sys/block/{}/queue/scheduler", disk.name);
            lines.warn(Id::Scheduler, &disk.name, chosen, fix);
        }
    }
}

//! Proves the file system itself before anything is proved with it: what each way of syncing keeps, through the kernel.

use super::mount::{Mounted, SharedDisk};
use anyhow::{Context, Result, ensure};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const SEEDS: u64 = 12;
const BLOCK: usize = 4096;

/// Memory aligned as O_DIRECT wants it.
#[repr(align(4096))]
struct Aligned([u8; BLOCK]);

/// Cuts the power after writes of each kind, with several seeds.
pub fn run(at: &Path) -> Result<()> {
    let mut forgotten = 0;
    for seed in 0..SEEDS {
        let disk = SharedDisk::new(seed);
        let mounted = Mounted::new(&disk, at)?;
        write(at)?;
        disk.power_off();
        ensure!(fs::write(at.join("late"), "x").is_err(), "a disk without power took a write");
        mounted.unmount()?;
        disk.forget(|disk| disk.cut(&mut fastrand::Rng::with_seed(seed)));
        let mounted = Mounted::new(&disk, at)?;
        for (name, length) in [("fsync", 9), ("dsync", 9), ("direct", BLOCK), ("cut-short", 5), ("renamed", 9)] {
            let found = fs::read(at.join(name)).with_context(|| format!("{name}, seed {seed}"))?;
            ensure!(found.len() == length && found.iter().all(|byte| *byte == b'x'), "{name} has changed, seed {seed}");
        }
        // Of the one the file was synced and not the name, of the other the name and not the file.
        let nameless = fs::read(at.join("nameless"));
        let unsynced = fs::read(at.join("unsynced"))?;
        ensure!(nameless.as_ref().map_or(true, |found| found == b"xxxxxxxxx"), "nameless has changed, seed {seed}");
        forgotten += u64::from(nameless.is_err()) + u64::from(unsynced != b"xxxxxxxxx");
        mounted.unmount()?;
    }
    ensure!(forgotten >= SEEDS / 3, "only {forgotten} of {} files were ever forgotten", 2 * SEEDS);
    Ok(())
}

fn write(at: &Path) -> Result<()> {
    let content = b"xxxxxxxxx";
    let mut file = File::create(at.join("fsync"))?;
    file.write_all(content)?;
    file.sync_data()?;
    let open =
        |name: &str, flags: i32| OpenOptions::new().write(true).create(true).custom_flags(flags).open(at.join(name));
    open("dsync", libc::O_DSYNC)?.write_all(content)?;
    open("direct", libc::O_DIRECT | libc::O_DSYNC)?.write_all(&Aligned([b'x'; BLOCK]).0)?;
    let mut file = File::create(at.join("cut-short"))?;
    file.write_all(content)?;
    file.sync_all()?;
    file.set_len(5)?;
    file.sync_all()?;
    let mut file = File::create(at.join("renamed.tmp"))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(at.join("renamed.tmp"), at.join("renamed"))?;
    File::create(at.join("unsynced"))?.write_all(content)?;
    File::open(at)?.sync_all()?;
    let mut file = File::create(at.join("nameless"))?;
    file.write_all(content)?;
    file.sync_all()?;
    Ok(())
}

//! Counterfeit machines: directories made of a text.
//!
//! ```text
//! # a comment
//! /path: what the file holds                  (a newline is put behind it)
//!   another line of it
//! /path -> where a link points to
//! @cpus NODES CORES-EACH THREADS GOVERNOR     (- for none)
//! @irqs NAME FIRST-LAST CPUS                  ("managed" for those that the kernel places)
//! ```

use crate::tuning::facts::Facts;
use crate::tuning::files::Root;
use crate::tuning::gather::{Live, Wish, gather};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use tempfile::TempDir;

pub const BARE_METAL: &str = include_str!("machines/bare_metal.txt");
pub const CONTAINER: &str = include_str!("machines/container.txt");
pub const CLOUD_VM: &str = include_str!("machines/cloud_vm.txt");

pub struct Machine {
    dir: TempDir,
    pub root: Root,
}

impl Machine {
    pub fn new(text: &str) -> Machine {
        // In memory where that goes: a machine has hundreds of files.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
        let root = Root::open(dir.path()).expect("it is there");
        let machine = Machine { dir, root };
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            if let Some(words) = line.strip_prefix("@cpus ") {
                machine.add_cpus(words);
            } else if let Some(words) = line.strip_prefix("@irqs ") {
                machine.add_irqs(words);
            } else if let Some((path, target)) = line.split_once(" -> ") {
                let path = machine.make_room(path);
                symlink(target, path).expect("a link");
            } else if let Some((path, first)) = line.split_once(": ").filter(|_| !line.starts_with('#')) {
                let mut value = format!("{first}\n");
                while let Some(more) = lines.next_if(|line| line.starts_with("  ")) {
                    value += &format!("{}\n", more.trim_start());
                }
                machine.set(path, value);
            } else {
                assert!(line.is_empty() || line.starts_with('#'), "{line}");
            }
        }
        machine
    }

    pub fn set(&self, path: &str, value: impl AsRef<[u8]>) {
        fs::write(self.make_room(path), value).expect("written");
    }

    pub fn get(&self, path: &str) -> String {
        fs::read_to_string(self.root.outside(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub fn remove(&self, path: &str) {
        fs::remove_file(self.root.outside(path)).expect("it is there");
    }

    pub fn facts(&self) -> Facts {
        self.facts_with(Live::default())
    }

    pub fn facts_with(&self, live: Live) -> Facts {
        gather(&self.root, live, &Wish { data_dirs: vec!["/data/corelog".to_owned()], nics: Vec::new() })
    }

    /// All files with what they hold, and all links with where they point to.
    pub fn tree(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let (mut tree, mut folders) = (BTreeMap::new(), vec![self.dir.path().to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("it can be listed") {
                let path = entry.expect("it can be listed").path();
                let kind = fs::symlink_metadata(&path).expect("it is there").file_type();
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_symlink() {
                    let target = fs::read_link(&path).expect("a link");
                    tree.insert(path, target.into_os_string().into_encoded_bytes());
                } else if kind.is_file() {
                    let bytes = fs::read(&path).expect("it can be read");
                    tree.insert(path, bytes);
                }
            }
        }
        tree
    }

    fn make_room(&self, path: &str) -> PathBuf {
        let path = self.root.outside(path);
        fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("made");
        path
    }

    fn add_cpus(&self, words: &str) {
        let [nodes, cores, threads, governor] = words.split(' ').collect::<Vec<_>>()[..] else { panic!("{words}") };
        let number = |word: &str| word.parse::<usize>().expect("a number");
        let (nodes, cores, threads) = (number(nodes), number(cores), number(threads));
        let all = nodes * cores;
        self.set("/sys/devices/system/cpu/online", format!("0-{}\n", all * threads - 1));
        for id in 0..all * threads {
            let dir = format!("/sys/devices/system/cpu/cpu{id}");
            self.set(&format!("{dir}/topology/physical_package_id"), format!("{}\n", id % all / cores));
            self.set(&format!("{dir}/topology/core_id"), format!("{}\n", id % all % cores));
            if governor != "-" {
                self.set(&format!("{dir}/cpufreq/scaling_governor"), format!("{governor}\n"));
                self.set(&format!("{dir}/cpufreq/scaling_available_governors"), "performance powersave\n");
            }
        }
        for node in 0..nodes {
            let threads = (0..threads)
                .map(|thread| format!("{}-{}", thread * all + node * cores, thread * all + (node + 1) * cores - 1));
            let list = threads.collect::<Vec<_>>().join(",");
            self.set(&format!("/sys/devices/system/node/node{node}/cpulist"), list + "\n");
        }
    }

    fn add_irqs(&self, words: &str) {
        let [_, range, cpus] = words.split(' ').collect::<Vec<_>>()[..] else { panic!("{words}") };
        let (first, last) = range.split_once('-').expect("first and last");
        for irq in first.parse::<u32>().expect("a number")..=last.parse().expect("a number") {
            let path = format!("/proc/irq/{irq}/smp_affinity_list");
            self.set(&path, if cpus == "managed" { "0-1\n".to_owned() } else { format!("{cpus}\n") });
            if cpus == "managed" {
                let read_only = fs::Permissions::from_mode(0o444);
                fs::set_permissions(self.root.outside(&path), read_only).expect("it is ours");
            }
        }
    }
}

//! A disk that forgets: what is durable of files and directories, and what is not yet. No I/O, no clock.
//!
//! The rules are POSIX's, at their strictest:
//! - Written data is durable after a sync of its file. Without one, each sector of 512 bytes may have been written back or not,
//!   and the file's size may be any between the durable one and the present one.
//! - A name (made, renamed, removed) is durable after a sync of its directory. Without one, each of these steps may have been
//!   taken or not; in half of all cuts they are taken in their order, as a journaling file system does. A rename is one step.
//! - A sync covers what was there when it began, not what came during it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};

pub const ROOT: u64 = 1;
const SECTOR: u64 = 512;
/// A file may not grow beyond this: sparse writes cost memory here.
const FILE_BYTES_MAX: u64 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    Missing,
    Exists,
    NotEmpty,
    NotADirectory,
    IsADirectory,
    TooLarge,
}

/// What an inode is.
#[derive(Debug)]
enum Inode {
    File(FileState),
    Directory(BTreeMap<OsString, u64>),
}

#[derive(Debug, Default)]
struct FileState {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that are not durable as they are, with the number of the step that last changed each.
    dirty: BTreeMap<u64, u64>,
}

/// A change of names that is not durable.
#[derive(Clone, Debug)]
struct Step {
    number: u64,
    directories: [u64; 2],
    kind: StepKind,
}

#[derive(Clone, Debug)]
enum StepKind {
    Link { name: OsString, inode: u64 },
    Unlink { name: OsString, inode: u64 },
    Rename { from: OsString, to: OsString, inode: u64 },
}

/// What a look at an inode tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub inode: u64,
    pub is_directory: bool,
    pub size: u64,
}

/// A sync that was begun: the inode, the number of the last step that it covers, and the file's size then.
#[derive(Clone, Copy, Debug)]
pub struct Sync {
    inode: u64,
    up_to: u64,
    size: u64,
}

/// What a power cut took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    pub sectors: u64,
    pub steps: u64,
}

#[derive(Debug)]
pub struct Disk {
    inodes: HashMap<u64, Inode>,
    /// Names that are durable, by directory.
    durable_names: HashMap<u64, BTreeMap<OsString, u64>>,
    pending: Vec<Step>,
    next_inode: u64,
    steps: u64,
}

impl Disk {
    pub fn new() -> Disk {
        let mut disk = Disk {
            inodes: HashMap::new(),
            durable_names: HashMap::new(),
            pending: Vec::new(),
            next_inode: ROOT + 1,
            steps: 0,
        };
        disk.inodes.insert(ROOT, Inode::Directory(BTreeMap::new()));
        disk.durable_names.insert(ROOT, BTreeMap::new());
        disk
    }

    pub fn look_up(&self, directory: u64, name: &OsStr) -> Result<Attributes, DiskError> {
        self.attributes(*self.names(directory)?.get(name).ok_or(DiskError::Missing)?)
    }

    pub fn attributes(&self, inode: u64) -> Result<Attributes, DiskError> {
        let (is_directory, size) = match self.inodes.get(&inode).ok_or(DiskError::Missing)? {
            Inode::File(file) => (false, file.now.len() as u64),
            Inode::Directory(names) => (true, names.len() as u64),
        };
        Ok(Attributes { inode, is_directory, size })
    }

    pub fn list(&self, directory: u64) -> Result<Vec<(OsString, Attributes)>, DiskError> {
        self.names(directory)?.iter().map(|(name, inode)| Ok((name.clone(), self.attributes(*inode)?))).collect()
    }

    pub fn make(&mut self, directory: u64, name: &OsStr, is_directory: bool) -> Result<Attributes, DiskError> {
        if self.names(directory)?.contains_key(name) {
            return Err(DiskError::Exists);
        }
        let inode = self.next_inode;
        self.next_inode += 1;
        if is_directory {
            self.inodes.insert(inode, Inode::Directory(BTreeMap::new()));
            self.durable_names.insert(inode, BTreeMap::new());
        } else {
            self.inodes.insert(inode, Inode::File(FileState::default()));
        }
        self.names_mut(directory)?.insert(name.to_owned(), inode);
        self.note([directory; 2], StepKind::Link { name: name.to_owned(), inode });
        self.attributes(inode)
    }

    /// Removes a name; a directory must be empty. The inode stays until the power is cut.
    pub fn remove(&mut self, directory: u64, name: &OsStr, is_directory: bool) -> Result<(), DiskError> {
        let found = self.look_up(directory, name)?;
        match (is_directory, found.is_directory) {
            (true, false) => return Err(DiskError::NotADirectory),
            (false, true) => return Err(DiskError::IsADirectory),
            (true, true) if found.size > 0 => return Err(DiskError::NotEmpty),
            _ => {}
        }
        self.names_mut(directory)?.remove(name);
        self.note([directory; 2], StepKind::Unlink { name: name.to_owned(), inode: found.inode });
        Ok(())
    }

    pub fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<(), DiskError> {
        let inode = self.look_up(from.0, from.1)?.inode;
        match self.look_up(to.0, to.1) {
            Ok(taken) if taken.is_directory && taken.size > 0 => return Err(DiskError::NotEmpty),
            _ => {}
        }
        self.names_mut(to.0)?.insert(to.1.to_owned(), inode);
        self.names_mut(from.0)?.remove(from.1);
        self.note([from.0, to.0], StepKind::Rename { from: from.1.to_owned(), to: to.1.to_owned(), inode });
        Ok(())
    }

    pub fn read(&self, inode: u64, position: u64, length: usize) -> Result<&[u8], DiskError> {
        let Some(Inode::File(file)) = self.inodes.get(&inode) else { return Err(DiskError::IsADirectory) };
        let from = usize::try_from(position).unwrap_or(usize::MAX).min(file.now.len());
        Ok(&file.now[from..file.now.len().min(from.saturating_add(length))])
    }

    pub fn write(&mut self, inode: u64, position: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let end = position + bytes.len() as u64;
        self.steps += 1;
        let step = self.steps;
        let file = self.file(inode)?;
        if end > FILE_BYTES_MAX {
            return Err(DiskError::TooLarge);
        }
        let before = file.now.len() as u64;
        if end > before {
            file.now.resize(end as usize, 0);
        }
        file.now[position as usize..end as usize].copy_from_slice(bytes);
        file.touch(position.min(before), end, step);
        Ok(())
    }

    pub fn set_size(&mut self, inode: u64, size: u64) -> Result<(), DiskError> {
        self.steps += 1;
        let step = self.steps;
        let file = self.file(inode)?;
        if size > FILE_BYTES_MAX {
            return Err(DiskError::TooLarge);
        }
        let before = file.now.len() as u64;
        file.now.resize(size as usize, 0);
        file.touch(before.min(size), before.max(size), step);
        Ok(())
    }

    /// Bytes of all files that have a name.
    pub fn bytes(&self) -> u64 {
        let mut bytes = 0;
        let mut to_visit = vec![ROOT];
        while let Some(inode) = to_visit.pop() {
            match self.inodes.get(&inode) {
                Some(Inode::File(file)) => bytes += file.now.len() as u64,
                Some(Inode::Directory(names)) => to_visit.extend(names.values()),
                None => {}
            }
        }
        bytes
    }

    /// Begins a sync of a file's data and size, or of a directory's names.
    pub fn begin_sync(&self, inode: u64) -> Result<Sync, DiskError> {
        Ok(Sync { inode, up_to: self.steps, size: self.attributes(inode)?.size })
    }

    pub fn end_sync(&mut self, sync: Sync) {
        match self.inodes.get_mut(&sync.inode) {
            Some(Inode::File(file)) => file.sync(sync),
            Some(Inode::Directory(_)) => {
                let covered = |step: &Step| step.number <= sync.up_to && step.directories.contains(&sync.inode);
                let (done, left) = std::mem::take(&mut self.pending).into_iter().partition(covered);
                self.pending = left;
                for step in done {
                    self.take(step);
                }
            }
            None => {}
        }
    }

    /// The power is cut: of what is not durable `random` chooses what stays.
    pub fn cut(&mut self, random: &mut fastrand::Rng) -> Forgotten {
        let mut forgotten = Forgotten::default();
        let pending = std::mem::take(&mut self.pending);
        let (in_order, reach) = (random.bool(), random.usize(..=pending.len()));
        for (at, step) in pending.into_iter().enumerate() {
            if if in_order { at < reach } else { random.bool() } {
                self.take(step);
            } else {
                forgotten.steps += 1;
            }
        }
        let mut reachable = BTreeSet::from([ROOT]);
        let mut to_visit = vec![ROOT];
        while let Some(directory) = to_visit.pop() {
            for inode in self.durable_names.get(&directory).into_iter().flat_map(BTreeMap::values) {
                if reachable.insert(*inode) {
                    to_visit.push(*inode);
                }
            }
        }
        self.inodes.retain(|inode, _| reachable.contains(inode));
        self.durable_names.retain(|inode, _| reachable.contains(inode));
        for inode in reachable {
            match self.inodes.get_mut(&inode) {
                Some(Inode::File(file)) => forgotten.sectors += file.cut(random),
                Some(Inode::Directory(names)) => *names = self.durable_names.get(&inode).cloned().unwrap_or_default(),
                None => {}
            }
        }
        forgotten
    }

    fn names(&self, directory: u64) -> Result<&BTreeMap<OsString, u64>, DiskError> {
        match self.inodes.get(&directory) {
            Some(Inode::Directory(names)) => Ok(names),
            Some(Inode::File(_)) => Err(DiskError::NotADirectory),
            None => Err(DiskError::Missing),
        }
    }

    fn names_mut(&mut self, directory: u64) -> Result<&mut BTreeMap<OsString, u64>, DiskError> {
        match self.inodes.get_mut(&directory) {
            Some(Inode::Directory(names)) => Ok(names),
            Some(Inode::File(_)) => Err(DiskError::NotADirectory),
            None => Err(DiskError::Missing),
        }
    }

    fn file(&mut self, inode: u64) -> Result<&mut FileState, DiskError> {
        match self.inodes.get_mut(&inode) {
            Some(Inode::File(file)) => Ok(file),
            Some(Inode::Directory(_)) => Err(DiskError::IsADirectory),
            None => Err(DiskError::Missing),
        }
    }

    fn note(&mut self, directories: [u64; 2], kind: StepKind) {
        self.steps += 1;
        self.pending.push(Step { number: self.steps, directories, kind });
    }

    /// Makes a change of names durable. What a step that was not taken would have made is not there to be removed.
    fn take(&mut self, step: Step) {
        let [from_directory, to_directory] = step.directories;
        let mut forget = |directory: u64, name: &OsStr, inode: u64| {
            if let Some(names) = self.durable_names.get_mut(&directory)
                && names.get(name) == Some(&inode)
            {
                names.remove(name);
            }
        };
        let made = match step.kind {
            StepKind::Link { name, inode } => Some((name, inode)),
            StepKind::Unlink { name, inode } => {
                forget(from_directory, &name, inode);
                None
            }
            StepKind::Rename { from, to, inode } => {
                forget(from_directory, &from, inode);
                Some((to, inode))
            }
        };
        if let Some((name, inode)) = made
            && let Some(names) = self.durable_names.get_mut(&to_directory)
        {
            names.insert(name, inode);
        }
    }
}

impl FileState {
    fn touch(&mut self, from: u64, to: u64, step: u64) {
        for sector in from / SECTOR..to.div_ceil(SECTOR) {
            self.dirty.insert(sector, step);
        }
    }

    fn sync(&mut self, sync: Sync) {
        // What was cut off or added during the sync is not covered by it.
        let size = (sync.size as usize).min(self.now.len());
        self.durable.resize(size, 0);
        let covered: Vec<u64> =
            self.dirty.iter().filter(|(_, step)| **step <= sync.up_to).map(|(sector, _)| *sector).collect();
        for sector in covered {
            self.dirty.remove(&sector);
            self.write_back(sector);
        }
        // The sector that the file ended in has grown since: its older part is durable all the same.
        let last = size as u64 / SECTOR;
        if self.dirty.contains_key(&last) {
            self.write_back(last);
        }
    }

    /// Copies a sector to the durable content, as far as that reaches.
    fn write_back(&mut self, sector: u64) {
        let from = (sector * SECTOR) as usize;
        let to = (from + SECTOR as usize).min(self.durable.len()).min(self.now.len());
        if from < to {
            self.durable[from..to].copy_from_slice(&self.now[from..to]);
        }
    }

    /// Chooses a size and sectors; gives how many of those that were not durable are lost.
    fn cut(&mut self, random: &mut fastrand::Rng) -> u64 {
        if self.dirty.is_empty() && self.durable.len() == self.now.len() {
            return 0;
        }
        let (least, most) = (self.durable.len().min(self.now.len()), self.durable.len().max(self.now.len()));
        let size = match random.u8(..3) {
            0 => self.durable.len(),
            1 => self.now.len(),
            _ => random.usize(least..=most),
        };
        let written_back = [0.0, 0.5, 0.9, 1.0][random.usize(..4)];
        self.durable.resize(size, 0);
        let mut lost = 0;
        for sector in std::mem::take(&mut self.dirty).into_keys() {
            if random.f64() < written_back {
                self.write_back(sector);
            } else {
                lost += 1;
            }
        }
        self.now = self.durable.clone();
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    fn sync(disk: &mut Disk, inode: u64) {
        let begun = disk.begin_sync(inode).expect("it is there");
        disk.end_sync(begun);
    }

    /// What is left of a file after cuts by many seeds.
    fn outcomes(build: impl Fn(&mut Disk)) -> BTreeSet<Option<Vec<u8>>> {
        let after = |seed| {
            let mut disk = Disk::new();
            build(&mut disk);
            disk.cut(&mut fastrand::Rng::with_seed(seed));
            let found = disk.look_up(ROOT, name("f")).ok()?;
            Some(disk.read(found.inode, 0, 4096).expect("a file").to_vec())
        };
        (0..300).map(after).collect()
    }

    #[test]
    fn what_was_synced_with_its_name_is_there() {
        let kept = outcomes(|disk| {
            let file = disk.make(ROOT, name("f"), false).expect("made").inode;
            disk.write(file, 0, b"hello").expect("written");
            sync(disk, file);
            sync(disk, ROOT);
        });
        assert_eq!(kept, BTreeSet::from([Some(b"hello".to_vec())]));
    }

    #[test]
    fn a_name_is_not_made_durable_by_its_files_sync() {
        let left = outcomes(|disk| {
            let file = disk.make(ROOT, name("f"), false).expect("made").inode;
            disk.write(file, 0, b"hello").expect("written");
            sync(disk, file);
        });
        assert_eq!(left, BTreeSet::from([None, Some(b"hello".to_vec())]));
    }

    #[test]
    fn sectors_without_a_sync_are_old_new_or_zero() {
        let left = outcomes(|disk| {
            let file = disk.make(ROOT, name("f"), false).expect("made").inode;
            disk.write(file, 0, &[1; 512]).expect("written");
            sync(disk, file);
            sync(disk, ROOT);
            disk.write(file, 0, &[2; 1024]).expect("written");
        });
        let halves = |size: usize| -> BTreeSet<(u8, u8)> {
            let of_size = left.iter().flatten().filter(|bytes| bytes.len() == size);
            of_size.map(|bytes| (bytes[0], bytes.get(512).copied().unwrap_or(9))).collect()
        };
        assert_eq!(halves(1024), BTreeSet::from([(1, 0), (2, 0), (1, 2), (2, 2)]));
        assert_eq!(halves(512), BTreeSet::from([(1, 9), (2, 9)]));
        assert!(left.iter().flatten().all(|bytes| bytes.len() >= 512), "what was durable stays");
    }

    #[test]
    fn a_sync_covers_what_was_there_when_it_began() {
        let left = outcomes(|disk| {
            let file = disk.make(ROOT, name("f"), false).expect("made").inode;
            sync(disk, ROOT);
            disk.write(file, 0, b"early").expect("written");
            let begun = disk.begin_sync(file).expect("it is there");
            disk.write(file, 5, &[b'x'; 600]).expect("written");
            disk.end_sync(begun);
        });
        assert!(left.iter().all(|left| left.as_ref().is_some_and(|bytes| bytes.starts_with(b"early"))), "{left:?}");
        assert!(left.contains(&Some(b"early".to_vec())));
    }

    #[test]
    fn a_rename_is_taken_whole_or_not() {
        let left = outcomes(|disk| {
            for (file, content) in [("f", b"old"), ("f.tmp", b"new")] {
                let inode = disk.make(ROOT, name(file), false).expect("made").inode;
                disk.write(inode, 0, content).expect("written");
                sync(disk, inode);
                sync(disk, ROOT);
            }
            disk.rename((ROOT, name("f.tmp")), (ROOT, name("f"))).expect("renamed");
        });
        assert_eq!(left, BTreeSet::from([Some(b"old".to_vec()), Some(b"new".to_vec())]));
    }
}

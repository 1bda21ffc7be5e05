//! Faults that tests put beneath the files of a log and of a journal. A broker has none: what is asked then is one comparison.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// Whose operation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Segment,
    /// Files and directories that are made, and the syncs of directories.
    Names,
    Ring,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Of so many bytes.
    Write(usize),
    Sync,
}

/// What happens instead.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It fails with this errno.
    Error(i32),
    /// So many bytes are written, and no more are said to be.
    Short(usize),
    /// Nothing, until it is let go; then it is done.
    Hang(Rc<Notify>),
}

type Decide = dyn Fn(Place, Act) -> Option<Fault>;

/// Decides for each operation; none by default.
#[derive(Clone, Default)]
pub struct Faults(Option<Rc<Decide>>);

impl Faults {
    pub fn by(decide: impl Fn(Place, Act) -> Option<Fault> + 'static) -> Faults {
        Faults(Some(Rc::new(decide)))
    }

    /// How many of the bytes may be written now, after what keeps the write waiting; or its error.
    pub async fn write(&self, place: Place, bytes: usize) -> io::Result<usize> {
        match self.at(place, Act::Write(bytes)) {
            None => Ok(bytes),
            Some(Fault::Error(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::Short(most)) => Ok(most.min(bytes)),
            Some(Fault::Hang(until)) => {
                until.notified().await;
                Ok(bytes)
            }
        }
    }

    /// Before a sync, or the making of a name.
    pub async fn sync(&self, place: Place) -> io::Result<()> {
        match self.at(place, Act::Sync) {
            None | Some(Fault::Short(_)) => Ok(()),
            Some(Fault::Error(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::Hang(until)) => {
                until.notified().await;
                Ok(())
            }
        }
    }

    fn at(&self, place: Place, act: Act) -> Option<Fault> {
        self.0.as_ref()?(place, act)
    }
}

type IsLost = dyn Fn(&Path, &Range<u64>) -> bool + Send + Sync;

/// Parts of files that the disk does not give back to the maintenance thread; none by default.
#[derive(Clone, Default)]
pub struct LostSectors(Option<Arc<IsLost>>);

impl LostSectors {
    pub fn by(is_lost: impl Fn(&Path, &Range<u64>) -> bool + Send + Sync + 'static) -> LostSectors {
        LostSectors(Some(Arc::new(is_lost)))
    }

    /// Before a part of a file is read.
    pub fn read(&self, path: &Path, part: &Range<u64>) -> io::Result<()> {
        match &self.0 {
            Some(is_lost) if is_lost(path, part) => Err(io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "faults" } else { "no faults" })
    }
}

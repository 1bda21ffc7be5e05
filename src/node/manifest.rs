//! `corelog.properties`: what a data directory knows of itself and of its node. The byte diagram is at `super::format`.

use super::format::FormatError;
use crate::base::ids::NodeId;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

pub const META: &str = "meta.properties";
pub const MANIFEST: &str = "corelog.properties";
pub const TEMPORARY: &str = ".tmp";
pub const FORMAT_VERSION: u32 = 1;
/// Room for some 250 directories with the longest of paths; what is longer is not ours.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// Begins the lines that name the node's directories.
const KNOWN: &str = "known.directory.";

/// What a directory says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub cluster_id: String,
    pub node_id: NodeId,
    pub shards: u16,
    /// Random; tells the directory from any other.
    pub directory_id: String,
    /// The node's directories by id, with the path at which each was seen last: what must be there at the next start.
    /// Empty where the directory was formatted before this was kept.
    pub known: BTreeMap<String, String>,
}

impl Manifest {
    pub fn text(&self) -> String {
        let mut body = format!(
            "format.version={FORMAT_VERSION}\ncluster.id={}\nnode.id={}\nshards={}\ndirectory.id={}\n",
            self.cluster_id, self.node_id, self.shards, self.directory_id
        );
        for (id, path) in &self.known {
            body.push_str(&format!("{KNOWN}{id}={path}\n"));
        }
        let crc = crc32fast::hash(body.as_bytes());
        format!("{body}crc32={crc:08x}\n")
    }

    /// The manifest in a directory; None where there is none.
    pub fn read(dir: &Path) -> Result<Option<Manifest>, FormatError> {
        let path = dir.join(MANIFEST);
        match File::open(&path) {
            Ok(file) => {
                let mut text = String::new();
                file.take(MANIFEST_BYTES_MAX).read_to_string(&mut text).map_err(io_error(&path, "read it"))?;
                Manifest::parse(&path, &text).map(Some)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(&path, "open it")(error)),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Manifest, FormatError> {
        let corrupt = |reason: String| FormatError::Corrupt { path: path.to_owned(), reason };
        let (body, crc) = text
            .strip_suffix('\n')
            .and_then(|text| text.rsplit_once("crc32="))
            .ok_or_else(|| corrupt("its checksum is missing".into()))?;
        let actual = format!("{:08x}", crc32fast::hash(body.as_bytes()));
        if crc != actual {
            return Err(corrupt(format!("its checksum is {actual} and should be {crc}")));
        }
        let field = |name: &str| {
            let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.ok_or_else(|| corrupt(format!("{name} is missing")))
        };
        let version: u32 =
            field("format.version")?.parse().map_err(|_| corrupt("format.version is no number".into()))?;
        if version > FORMAT_VERSION {
            return Err(FormatError::Newer { path: path.to_owned(), found: version });
        }
        let known = body.lines().filter_map(|line| line.strip_prefix(KNOWN)?.split_once('='));
        Ok(Manifest {
            cluster_id: field("cluster.id")?.to_owned(),
            node_id: NodeId(field("node.id")?.parse().map_err(|_| corrupt("node.id is no number".into()))?),
            shards: field("shards")?.parse().map_err(|_| corrupt("shards is no number".into()))?,
            directory_id: field("directory.id")?.to_owned(),
            known: known.map(|(id, path)| (id.to_owned(), path.to_owned())).collect(),
        })
    }
}

/// A path as it stands in a manifest, for people to read: on one line, whatever bytes it has.
pub fn path_text(path: &Path) -> String {
    path.to_string_lossy().replace(char::is_control, "?")
}

/// One step of writing a directory's files; what is on disk after any number of them is what a crash may leave.
#[derive(Debug)]
pub enum Step {
    WriteTemporary(&'static str, String),
    Rename(&'static str),
    SyncDir,
}

/// A directory becomes one of ours.
pub fn format_steps(manifest: &Manifest) -> Vec<Step> {
    let meta = format!("version=0\nbroker.id={}\ncluster.id={}\n", manifest.node_id, manifest.cluster_id);
    let mut steps = write_steps(META, meta);
    steps.extend(write_steps(MANIFEST, manifest.text()));
    steps
}

/// A file gets new content: the old or the new is there at any time.
pub fn write_steps(name: &'static str, text: String) -> Vec<Step> {
    vec![Step::WriteTemporary(name, text), Step::Rename(name), Step::SyncDir]
}

impl Step {
    pub fn perform(&self, dir: &Path) -> Result<(), FormatError> {
        let temporary = |name: &str| dir.join(format!("{name}{TEMPORARY}"));
        match self {
            Step::WriteTemporary(name, text) => {
                let path = temporary(name);
                let written = File::create(&path).and_then(|mut file| {
                    file.write_all(text.as_bytes())?;
                    file.sync_all()
                });
                written.map_err(io_error(&path, "write it"))
            }
            Step::Rename(name) => fs::rename(temporary(name), dir.join(name)).map_err(io_error(dir, "rename in it")),
            Step::SyncDir => sync_dir(dir),
        }
    }
}

pub fn sync_dir(dir: &Path) -> Result<(), FormatError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error(dir, "sync it"))
}

pub fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> FormatError {
    let path = path.to_owned();
    move |error| FormatError::Io { path, action, error }
}

//! Small text files, read whole.

use super::finding::{Check, Findings, Place, Severity};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// More than the checkpoints of 150,000 partitions with the longest names take.
const TEXT_BYTES_MAX: u64 = 64 << 20;

pub enum Text {
    Is(String),
    NotThere,
    /// It was told of.
    Unreadable,
}

pub fn read_text(path: &Path, findings: &mut Findings) -> Text {
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut content));
    match read {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Text::NotThere,
        Err(e) => {
            findings.add_unreadable(path, &e);
            return Text::Unreadable;
        }
        Ok(_) => {}
    }
    let is_bounded = content.len() as u64 <= TEXT_BYTES_MAX;
    match String::from_utf8(content) {
        Ok(text) if is_bounded => Text::Is(text),
        other => {
            let found = match other {
                Ok(_) => format!("more than {TEXT_BYTES_MAX} bytes"),
                Err(e) => format!("bytes that are no text, from byte {} on", e.utf8_error().valid_up_to()),
            };
            let meaning = "the file is damaged, and says nothing to a start";
            let kind = (Severity::Error, Check::Checkpoint);
            findings.add(kind, (path, Place::Whole), ("a text", found), meaning);
            Text::Unreadable
        }
    }
}

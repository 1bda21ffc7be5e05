//! Files of text: checkpoints (a version, a count, so many lines), `partition.metadata`, `meta.properties`.

use super::reader::Corrupt;
use super::{DumpError, Out};
use crate::base::ids::TopicId;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

/// A longer line is not one of these files'.
const LINE_BYTES_MAX: usize = 4096;

pub(super) fn dump_epochs(path: &Path, out: &mut Out) -> Result<(), DumpError> {
    let mut previous: Option<(i32, i64)> = None;
    checkpoint(path, out, |at, fields, out| {
        let [epoch, start] = fields else { return Err(shape(at, "EPOCH START-OFFSET", fields)) };
        let (epoch, start) = (number::<i32>(at, "epoch", epoch)?, number::<i64>(at, "offset", start)?);
        if let Some((e, s)) = previous.filter(|(e, s)| epoch <= *e || start < *s) {
            return Err(Corrupt::at(at, format!("epoch {epoch} from offset {start} does not follow {e} from {s}")));
        }
        previous = Some((epoch, start));
        out.text(|| format!("  leader epoch {epoch} from offset {start}"))?;
        out.json(|| json!({ "type": "leader_epoch", "epoch": epoch, "start_offset": start }))?;
        Ok(())
    })
}

pub(super) fn dump_offsets(path: &Path, out: &mut Out) -> Result<(), DumpError> {
    checkpoint(path, out, |at, fields, out| {
        let [topic, partition, offset] = fields else { return Err(shape(at, "TOPIC PARTITION OFFSET", fields)) };
        let (partition, offset) = (number::<i32>(at, "partition", partition)?, number::<i64>(at, "offset", offset)?);
        out.text(|| format!("  {topic}-{partition}  {offset}"))?;
        out.json(|| json!({ "type": "offset", "topic": topic, "partition": partition, "offset": offset }))?;
        Ok(())
    })
}

pub(super) fn dump_properties(path: &Path, out: &mut Out) -> Result<(), DumpError> {
    let mut lines = Lines::open(path)?;
    let mut object = Map::new();
    object.insert("type".to_owned(), "properties".into());
    while let Some((at, line)) = lines.next()? {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((key, value)) = line.split_once([':', '=']) else {
            return Err(Corrupt::at(at, format!("'{line}' is not of the form key: value")));
        };
        let (key, value) = (key.trim(), value.trim());
        if key == "topic_id" && TopicId::parse(value).is_none() {
            return Err(Corrupt::at(at, format!("'{value}' is not a topic id")));
        }
        if key == "version" && !["0", "1"].contains(&value) {
            return Err(Corrupt::at(at, format!("version '{value}' is not known")));
        }
        out.text(|| format!("  {key} = {value}"))?;
        object.insert(key.to_owned(), value.into());
    }
    if object.len() == 1 {
        return Err(Corrupt::at(0, "the file is empty"));
    }
    out.json(|| Value::Object(object))?;
    Ok(())
}

fn checkpoint(
    path: &Path,
    out: &mut Out,
    mut each: impl FnMut(u64, &[&str], &mut Out) -> Result<(), DumpError>,
) -> Result<(), DumpError> {
    let mut lines = Lines::open(path)?;
    let (at, version) = lines.next()?.ok_or_else(|| Corrupt::at(0, "the file is empty"))?;
    if version.trim() != "0" {
        return Err(Corrupt::at(at, format!("checkpoint version '{}', only 0 is known", version.trim())));
    }
    let (at, count) = lines.next()?.ok_or_else(|| Corrupt::at(at, "the number of entries is missing"))?;
    let count = number::<u64>(at, "number of entries", count.trim())?;
    let mut seen = 0;
    while let Some((at, line)) = lines.next()? {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.is_empty() {
            continue;
        }
        each(at, &fields, out)?;
        seen += 1;
    }
    if seen != count {
        return Err(Corrupt::at(at, format!("{count} entries are announced, {seen} are there")));
    }
    out.text(|| format!("  {count} entries: sound"))?;
    out.json(|| json!({ "type": "checkpoint", "file": path.display().to_string(), "entries": count }))?;
    Ok(())
}

fn shape(at: u64, wanted: &str, found: &[&str]) -> DumpError {
    Corrupt::at(at, format!("'{}' is not of the form {wanted}", found.join(" ")))
}

fn number<T: std::str::FromStr + PartialOrd + Default>(at: u64, what: &str, text: &str) -> Result<T, DumpError> {
    match text.parse::<T>() {
        Ok(n) if n >= T::default() => Ok(n),
        _ => Err(Corrupt::at(at, format!("'{text}' is no {what}"))),
    }
}

/// Lines with the byte they begin at.
struct Lines {
    input: BufReader<File>,
    position: u64,
}

impl Lines {
    fn open(path: &Path) -> Result<Lines, DumpError> {
        Ok(Lines { input: BufReader::new(File::open(path).map_err(DumpError::Read)?), position: 0 })
    }

    fn next(&mut self) -> Result<Option<(u64, String)>, DumpError> {
        let at = self.position;
        let mut line = Vec::new();
        let read = io::Read::take(&mut self.input, LINE_BYTES_MAX as u64)
            .read_until(b'\n', &mut line)
            .map_err(DumpError::Read)?;
        if read == 0 {
            return Ok(None);
        }
        if read == LINE_BYTES_MAX {
            return Err(Corrupt::at(at, format!("a line of {LINE_BYTES_MAX} bytes or more")));
        }
        self.position += read as u64;
        String::from_utf8(line).map(|line| Some((at, line))).map_err(|_| Corrupt::at(at, "the line is not text"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::dump::{Form, Kind, dump};
    use std::io::{BufWriter, Write};

    fn checked(kind: Kind, name: &str, content: &str) -> Result<(), String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(name);
        File::create(&path).and_then(|mut f| f.write_all(content.as_bytes())).expect("written");
        let mut out = Out { form: Form::Quiet, out: BufWriter::new(io::stdout()) };
        dump(&path, kind, false, &mut out).map_err(|e| e.to_string())
    }

    #[test]
    fn checkpoints_are_checked_line_by_line() {
        let epochs = |content| checked(Kind::LeaderEpochs, "leader-epoch-checkpoint", content);
        assert_eq!(epochs("0\n2\n0 0\n3 17\n"), Ok(()));
        assert_eq!(epochs("0\n0\n"), Ok(()));
        let byte_8 = "corrupt at byte 8: epoch 0 from offset 17 does not follow 0 from 0";
        assert_eq!(epochs("0\n2\n0 0\n0 17\n"), Err(byte_8.to_owned()));
        assert!(epochs("0\n3\n0 0\n").is_err_and(|e| e.contains("3 entries are announced, 1 are there")));
        assert!(epochs("7\n0\n").is_err());
        assert!(epochs("").is_err());
        let offsets = |content| checked(Kind::Offsets, "recovery-point-offset-checkpoint", content);
        assert_eq!(offsets("0\n1\nclicks 0 12\n"), Ok(()));
        assert!(offsets("0\n1\nclicks 0\n").is_err());
        assert!(offsets("0\n1\nclicks 0 -1\n").is_err());
    }

    #[test]
    fn properties_are_key_and_value() {
        let meta = |content| checked(Kind::Properties, "partition.metadata", content);
        assert_eq!(meta("version: 0\ntopic_id: HhfxOZyIR6eVZgi2CRbVqg\n"), Ok(()));
        assert!(meta("version: 0\ntopic_id: x\n").is_err());
        assert!(meta("").is_err());
    }
}

//! Lines in, records out.

use crate::cli::moment::now_ms;
use crate::client::limits::INPUT_RECORD_BYTES_MAX;
use crate::client::producer::{Feeder, NewRecord};
use bytes::{Bytes, BytesMut};
use clap::ValueEnum;
use serde_json::Value;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a line becomes a record.
#[derive(Clone, Debug)]
pub struct LineRules {
    pub key: Key,
    pub stamp: Stamp,
    pub headers: Vec<(String, Option<Bytes>)>,
    pub partition: Option<i32>,
    pub null_empty: bool,
}

#[derive(Clone, Debug)]
pub enum Key {
    None,
    Fixed(Bytes),
    Before(Separator),
    Field(String),
}

#[derive(Clone, Debug)]
pub enum Stamp {
    Now,
    Fixed(i64),
    Field(String, TimeUnit),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Separator(Vec<u8>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TimeUnit {
    S,
    Ms,
    Us,
    Ns,
}

/// Bytes read so far, seen by the progress bar.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

const READ_BYTES: usize = 256 << 10;

/// Reads lines until the input ends or the producer has stopped. What has come is handed on at once, so that a slow
/// pipe's lines do not wait for one another.
pub fn feed(mut input: impl Read, rules: &LineRules, counter: &Counter, feeder: &mut Feeder) -> Result<(), String> {
    let mut buffer = BytesMut::new();
    let mut line = 0;
    loop {
        let filled = buffer.len();
        buffer.resize(filled + READ_BYTES, 0);
        let space = buffer.get_mut(filled..).expect("invariant: the buffer has just grown");
        let read = match input.read(space) {
            Ok(read) => read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {
                buffer.truncate(filled);
                continue;
            }
            Err(e) => return Err(format!("after line {line}: {e}")),
        };
        let ended = read == 0;
        buffer.truncate(filled + read);
        counter.0.fetch_add(read as u64, Ordering::Relaxed);
        let (records, error) = take_lines(&mut buffer, filled, ended, rules, &mut line);
        if !records.is_empty() && !feeder.give(records) {
            return Ok(());
        }
        match error {
            Some(error) => return Err(error),
            None if ended => return Ok(()),
            None if buffer.len() > INPUT_RECORD_BYTES_MAX => {
                return Err(format!("line {} is longer than {INPUT_RECORD_BYTES_MAX} bytes", line + 1));
            }
            None => {}
        }
    }
}

/// Takes all whole lines out of the buffer (at the end of the input, also one without its line feed). Stops at a line
/// that cannot be understood. The first `searched` bytes are known to hold no line feed.
fn take_lines(
    buffer: &mut BytesMut,
    searched: usize,
    ended: bool,
    rules: &LineRules,
    line: &mut u64,
) -> (Vec<NewRecord>, Option<String>) {
    let fresh = buffer.get(searched..).unwrap_or_default();
    let end = match fresh.iter().rposition(|b| *b == b'\n') {
        _ if ended => buffer.len(),
        Some(at) => searched + at + 1,
        None => return (Vec::new(), None),
    };
    let mut whole = buffer.split_to(end).freeze();
    let mut records = Vec::new();
    while !whole.is_empty() {
        *line += 1;
        let text = match whole.iter().position(|b| *b == b'\n') {
            Some(at) => {
                let text = whole.split_to(at);
                let _line_feed = whole.split_to(1);
                text
            }
            None => std::mem::take(&mut whole),
        };
        match record(text, rules, *line) {
            Ok(record) => records.push(record),
            Err(reason) => return (records, Some(format!("line {line}: {reason}"))),
        }
    }
    (records, None)
}

fn record(text: Bytes, rules: &LineRules, line: u64) -> Result<NewRecord, String> {
    let wants_json = matches!(rules.key, Key::Field(_)) || matches!(rules.stamp, Stamp::Field(..));
    let json: Value = match wants_json {
        true => serde_json::from_slice(&text).map_err(|e| format!("not JSON: {e}"))?,
        false => Value::Null,
    };
    let (key, value) = match &rules.key {
        Key::None => (None, text),
        Key::Fixed(key) => (Some(key.clone()), text),
        Key::Field(name) => (json_key(&json, name)?, text),
        Key::Before(Separator(separator)) => match find(&text, separator) {
            Some(at) => (Some(text.slice(..at)), text.slice(at + separator.len()..)),
            None => (None, text),
        },
    };
    let timestamp_ms = match &rules.stamp {
        Stamp::Now => now_ms(),
        Stamp::Fixed(ms) => *ms,
        Stamp::Field(name, unit) => json_time(&json, name, *unit)?,
    };
    let keep = |bytes: &Bytes| !(rules.null_empty && bytes.is_empty());
    Ok(NewRecord {
        key: key.filter(keep),
        value: Some(value).filter(keep),
        headers: rules.headers.clone(),
        timestamp_ms,
        partition: rules.partition,
        line,
    })
}

/// The separator of `-K`, with `\t`, `\n`, `\\` and `\xNN` understood.
pub fn parse_separator(text: &str) -> Result<Separator, String> {
    let bytes = crate::cli::consume::format::unescape(text)?;
    if bytes.is_empty() { Err("the separator is empty".to_owned()) } else { Ok(Separator(bytes)) }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    match needle {
        [byte] => haystack.iter().position(|b| b == byte),
        needle => haystack.windows(needle.len()).position(|window| window == needle),
    }
}

fn field<'a>(json: &'a Value, path: &str) -> Option<&'a Value> {
    // A field whose own name contains a dot wins over a path.
    json.get(path).or_else(|| path.split('.').try_fold(json, |value, name| value.get(name)))
}

fn json_key(json: &Value, path: &str) -> Result<Option<Bytes>, String> {
    match field(json, path) {
        None => Err(format!("there is no field '{path}'")),
        Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(Bytes::from(text.clone()))),
        Some(other) => Ok(Some(Bytes::from(other.to_string()))),
    }
}

fn json_time(json: &Value, path: &str, unit: TimeUnit) -> Result<i64, String> {
    let value = field(json, path).ok_or_else(|| format!("there is no field '{path}'"))?;
    let bad = || format!("field '{path}' is not a time: {value}");
    let ms = match value {
        Value::String(text) => match text.parse::<jiff::Timestamp>() {
            Ok(at) => at.as_millisecond(),
            Err(_) => to_ms(text.trim().parse::<f64>().map_err(|_| bad())?, unit),
        },
        Value::Number(number) => match (number.as_i64(), unit) {
            (Some(ms), TimeUnit::Ms) => ms,
            _ => to_ms(number.as_f64().ok_or_else(bad)?, unit),
        },
        _ => return Err(bad()),
    };
    if ms < 0 { Err(bad()) } else { Ok(ms) }
}

fn to_ms(value: f64, unit: TimeUnit) -> i64 {
    let ms = match unit {
        TimeUnit::S => value * 1e3,
        TimeUnit::Ms => value,
        TimeUnit::Us => value / 1e3,
        TimeUnit::Ns => value / 1e6,
    };
    // The cast saturates; a negative or absurd result is refused or shows as such.
    ms.floor() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> LineRules {
        LineRules { key: Key::None, stamp: Stamp::Fixed(7), headers: Vec::new(), partition: None, null_empty: false }
    }

    fn lines(text: &str, ended: bool, rules: &LineRules) -> (Vec<NewRecord>, Option<String>, usize) {
        let mut buffer = BytesMut::from(text);
        let (records, error) = take_lines(&mut buffer, 0, ended, rules, &mut 0);
        (records, error, buffer.len())
    }

    fn pairs(records: &[NewRecord]) -> Vec<(Option<&str>, Option<&str>)> {
        fn text(bytes: &Option<Bytes>) -> Option<&str> {
            bytes.as_deref().map(|b| std::str::from_utf8(b).expect("text"))
        }
        records.iter().map(|r| (text(&r.key), text(&r.value))).collect()
    }

    #[test]
    fn an_unfinished_line_waits_until_the_input_ends() {
        let (records, error, left) = lines("a\n\nbc", false, &rules());
        assert_eq!((pairs(&records), error, left), (vec![(None, Some("a")), (None, Some(""))], None, 2));
        let (records, _, left) = lines("a\n\nbc", true, &rules());
        assert_eq!((records.len(), left), (3, 0));
        assert_eq!(records.last().map(|r| r.line), Some(3));
    }

    #[test]
    fn keys_stand_before_the_first_separator() {
        let key = Key::Before(parse_separator("\\t").expect("a tab"));
        let with_key = LineRules { key, null_empty: true, ..rules() };
        let (records, _, _) = lines("k\tv\tw\nplain\nk\t\n", true, &with_key);
        assert_eq!(pairs(&records), [(Some("k"), Some("v\tw")), (None, Some("plain")), (Some("k"), None)]);
        let long = LineRules { key: Key::Before(parse_separator("::").expect("colons")), ..rules() };
        assert_eq!(pairs(&lines("a:b::c", true, &long).0), [(Some("a:b"), Some("c"))]);
    }

    #[test]
    fn json_fields_give_key_and_time() {
        let json = LineRules {
            key: Key::Field("user.id".to_owned()),
            stamp: Stamp::Field("ts".to_owned(), TimeUnit::Ms),
            ..rules()
        };
        let text = "{\"ts\":1312242084000,\"user\":{\"id\":1}}\n{\"ts\":\"2011-08-01T23:41:24Z\",\"user\":{\"id\":\"x\"}}\n{\"ts\":1}";
        let (records, error, _) = lines(text, true, &json);
        let seen: Vec<_> = records.iter().map(|r| (r.key.clone().unwrap_or_default(), r.timestamp_ms)).collect();
        assert_eq!(seen, [(Bytes::from("1"), 1_312_242_084_000), (Bytes::from("x"), 1_312_242_084_000)]);
        assert_eq!(error.as_deref(), Some("line 3: there is no field 'user.id'"));
        assert_eq!(to_ms(1.5, TimeUnit::S), 1500);
    }
}

//! How a consumed record is written: kcat's format tokens, or JSON.

use crate::record::records::Record;
use serde_json::{Map, Value, json};
use std::io::{self, Write};

/// What the tokens mean, for the help text.
pub const TOKENS: &str = "\
Format tokens:
  %k %v   key and value (%s is kcat's name of the value)     %K %V   their lengths in bytes, -1 for null (%S too)
  %t %p %o  topic, partition, offset                         %T      timestamp in ms    %D   timestamp as a date
  %h      headers as key=value,…                             %%      a percent sign
  \\n \\t \\r \\0 \\\\ \\xNN  as in C";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    Tokens(Vec<Token>),
    Json,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    Text(Vec<u8>),
    Key,
    KeyLength,
    Value,
    ValueLength,
    Topic,
    Partition,
    Offset,
    Timestamp,
    Date,
    Headers,
}

impl Format {
    pub fn parse(text: &str) -> Result<Format, String> {
        let mut tokens: Vec<Token> = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                literal.push(c);
                continue;
            }
            let token = match chars.next() {
                Some('%') => {
                    literal.push('%');
                    continue;
                }
                Some('k') => Token::Key,
                Some('K') => Token::KeyLength,
                Some('v' | 's') => Token::Value,
                Some('V' | 'S') => Token::ValueLength,
                Some('t') => Token::Topic,
                Some('p') => Token::Partition,
                Some('o') => Token::Offset,
                Some('T') => Token::Timestamp,
                Some('D') => Token::Date,
                Some('h') => Token::Headers,
                Some(other) => return Err(format!("%{other} is no format token; see --help for the list")),
                None => return Err("a '%' at the end; write %% for a percent sign".to_owned()),
            };
            if !literal.is_empty() {
                tokens.push(Token::Text(unescape(&std::mem::take(&mut literal))?));
            }
            tokens.push(token);
        }
        if !literal.is_empty() {
            tokens.push(Token::Text(unescape(&literal)?));
        }
        Ok(Format::Tokens(tokens))
    }

    pub fn write(&self, out: &mut impl Write, topic: &str, partition: i32, record: &Record<'_>) -> io::Result<()> {
        match self {
            Format::Tokens(tokens) => {
                tokens.iter().try_for_each(|token| write_token(token, out, topic, partition, record))
            }
            Format::Json => {
                serde_json::to_writer(&mut *out, &as_json(topic, partition, record))?;
                out.write_all(b"\n")
            }
        }
    }
}

/// Understands `\n`, `\t`, `\r`, `\0`, `\\` and `\xNN`.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        bytes.push(match chars.next() {
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('r') => b'\r',
            Some('0') => 0,
            Some('\\') => b'\\',
            Some('x') => {
                let hex: String = chars.by_ref().take(2).collect();
                u8::from_str_radix(&hex, 16).map_err(|_| format!("\\x{hex} needs two hexadecimal digits"))?
            }
            other => return Err(format!("\\{} is not understood", other.map_or(String::new(), String::from))),
        });
    }
    Ok(bytes)
}

fn write_token(
    token: &Token,
    out: &mut impl Write,
    topic: &str,
    partition: i32,
    record: &Record<'_>,
) -> io::Result<()> {
    match token {
        Token::Text(bytes) => out.write_all(bytes),
        Token::Key => out.write_all(record.key.unwrap_or_default()),
        Token::Value => out.write_all(record.value.unwrap_or_default()),
        Token::KeyLength => write!(out, "{}", length(record.key)),
        Token::ValueLength => write!(out, "{}", length(record.value)),
        Token::Topic => out.write_all(topic.as_bytes()),
        Token::Partition => write!(out, "{partition}"),
        Token::Offset => write!(out, "{}", record.offset),
        Token::Timestamp => write!(out, "{}", record.timestamp),
        Token::Date => match crate::cli::moment::show_moment(record.timestamp) {
            Some(date) => out.write_all(date.as_bytes()),
            None => write!(out, "{}", record.timestamp),
        },
        Token::Headers => {
            for (at, header) in record.headers.iter().enumerate() {
                if at > 0 {
                    out.write_all(b",")?;
                }
                out.write_all(header.key)?;
                out.write_all(b"=")?;
                out.write_all(header.value.unwrap_or(b"NULL"))?;
            }
            Ok(())
        }
    }
}

fn length(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(-1, |b| b.len() as i64)
}

/// Bytes that are not UTF-8 come as base64, under a name that says so.
pub fn as_json(topic: &str, partition: i32, record: &Record<'_>) -> Value {
    let mut object = Map::new();
    object.insert("topic".to_owned(), topic.into());
    object.insert("partition".to_owned(), partition.into());
    object.insert("offset".to_owned(), record.offset.0.into());
    object.insert("timestamp".to_owned(), record.timestamp.into());
    put_bytes(&mut object, "key", record.key);
    put_bytes(&mut object, "value", record.value);
    let headers = record.headers.iter().map(|header| {
        let mut entry = Map::new();
        put_bytes(&mut entry, "key", Some(header.key));
        put_bytes(&mut entry, "value", header.value);
        Value::Object(entry)
    });
    object.insert("headers".to_owned(), json!(headers.collect::<Vec<_>>()));
    Value::Object(object)
}

fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    use base64::Engine;
    let (name, value) = match bytes.map(|b| (b, std::str::from_utf8(b))) {
        None => (name.to_owned(), Value::Null),
        Some((_, Ok(text))) => (name.to_owned(), text.into()),
        Some((raw, Err(_))) => (format!("{name}_base64"), base64::engine::general_purpose::STANDARD.encode(raw).into()),
    };
    object.insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{LeaderEpoch, Offset};
    use crate::record::batch::BatchHeader;
    use crate::record::builder::BatchBuilder;
    use crate::record::compression::Compression;
    use crate::record::records::Records;

    fn written(format: &Format) -> String {
        let mut b = BatchBuilder::new(Compression::NONE).placed(Offset(41), LeaderEpoch(0));
        b.push(1_312_242_084_000, Some(b"k"), Some(b"v"), &[("h", Some(b"1")), ("i", None)]).expect("small");
        b.push(5, None, Some(&[0xff]), &[]).expect("small");
        let batch = b.build().expect("small");
        let header = BatchHeader::parse(&batch).expect("a batch");
        let mut records = Records::new(&header, &batch).expect("records");
        let mut out = Vec::new();
        while let Some(record) = records.next().expect("readable") {
            format.write(&mut out, "t", 2, &record).expect("written to memory");
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn tokens_are_kcats() {
        let format = Format::parse("%t/%p@%o %T %D %k(%K)=%s(%S) [%h] 100%%\\x21\\n").expect("a format");
        let text = written(&format);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("t/2@41 1312242084000 2011-08-01T23:41:24.000Z k(1)=v(1) [h=1,i=NULL] 100%!"));
        assert!(lines.next().is_some_and(|l| l.contains("(-1)=")));
        assert!(Format::parse("%q").is_err());
        assert!(Format::parse("%").is_err());
        assert!(Format::parse("\\q").is_err());
    }

    #[test]
    fn json_keeps_every_byte() {
        let text = written(&Format::Json);
        let rows: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        let first = json!({"topic": "t", "partition": 2, "offset": 41, "timestamp": 1_312_242_084_000i64, "key": "k",
            "value": "v", "headers": [{"key": "h", "value": "1"}, {"key": "i", "value": null}]});
        assert_eq!(rows.first(), Some(&first));
        assert_eq!(rows.get(1).and_then(|r| r.get("value_base64")), Some(&json!("/w==")));
    }
}

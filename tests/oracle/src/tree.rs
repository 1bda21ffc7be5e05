//! A decoded message as a tree of named fields, whatever its type.
//!
//! kafka-protocol's types have no reflection, but their derived `Debug` names every field: its text is parsed into a
//! tree, and the comparison needs no code per API. New APIs join without a line here.

use anyhow::{Context, Result, bail};
use std::fmt::{self, Debug, Display};

#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// A number, bool, uuid, or whatever else is one word; and values that normalising has replaced by their meaning.
    Word(String),
    Text(String),
    Bytes(Vec<u8>),
    Null,
    List(Vec<Tree>),
    Struct(String, Vec<(String, Tree)>),
}

impl Tree {
    pub fn of(value: &impl Debug) -> Result<Tree> {
        let text = format!("{value:?}");
        let mut parser = Parser { text: &text, at: 0 };
        let tree = parser.value().with_context(|| format!("in the debug text of a message at byte {}", parser.at))?;
        if parser.at != text.len() {
            bail!("debug text goes on after the value: {}", &text[parser.at..]);
        }
        Ok(tree)
    }

    pub fn word(text: impl Display) -> Tree {
        Tree::Word(text.to_string())
    }

    pub fn field(&self, name: &str) -> Option<&Tree> {
        match self {
            Tree::Struct(_, fields) => fields.iter().find(|(field, _)| field == name).map(|(_, value)| value),
            _ => None,
        }
    }

    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Tree::Word(word) => word.parse().ok(),
            _ => None,
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Tree::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// One line; long values are cut.
impl Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tree::Word(word) => f.write_str(word),
            Tree::Text(text) if text.chars().count() > 400 => {
                write!(f, "{:?}… ({} bytes)", text.chars().take(100).collect::<String>(), text.len())
            }
            Tree::Text(text) => write!(f, "{text:?}"),
            Tree::Null => f.write_str("null"),
            Tree::Bytes(bytes) if bytes.len() > 48 => {
                write!(f, "{}… ({} bytes)", bytes[..48].escape_ascii(), bytes.len())
            }
            Tree::Bytes(bytes) => write!(f, "b\"{}\"", bytes.escape_ascii()),
            Tree::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if index > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
            Tree::Struct(_, fields) => {
                f.write_str("{")?;
                for (index, (name, value)) in fields.iter().enumerate() {
                    write!(f, "{}{name}: {value}", if index > 0 { ", " } else { "" })?;
                }
                f.write_str("}")
            }
        }
    }
}

/// Reads the text that `#[derive(Debug)]` writes without `#`.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn value(&mut self) -> Result<Tree> {
        match self.peek() {
            Some('"') => Ok(Tree::Text(String::from_utf8(self.quoted()?)?)),
            Some('[') => Ok(Tree::List(self.items('[', ']', Self::value)?)),
            Some('{') => {
                let pairs = self.items('{', '}', |parser| {
                    let key = parser.value()?;
                    parser.expect(": ")?;
                    Ok(Tree::Struct("Entry".into(), vec![("key".into(), key), ("value".into(), parser.value()?)]))
                })?;
                Ok(Tree::List(pairs))
            }
            Some('b') if self.rest().starts_with("b\"") => {
                self.at += 1;
                Ok(Tree::Bytes(self.quoted()?))
            }
            Some(_) => self.named(),
            None => bail!("the text ends where a value should be"),
        }
    }

    /// A word, `Name(value)` (which is its value) or `Name { field: value, … }`.
    fn named(&mut self) -> Result<Tree> {
        let rest = self.rest();
        let end = rest.find([' ', ',', '(', ')', ']', '}', ':']).unwrap_or(rest.len());
        let word = rest[..end].to_owned();
        if word.is_empty() {
            bail!("no value at {rest:.20}");
        }
        self.at += end;
        if self.rest().starts_with('(') {
            let mut items = self.items('(', ')', Self::value)?;
            return match items.len() {
                1 => Ok(items.remove(0)),
                _ => Ok(Tree::List(items)),
            };
        }
        if self.rest().starts_with(" { ") {
            self.at += 3;
            let mut fields = Vec::new();
            loop {
                let rest = self.rest();
                let colon = rest.find(": ").context("a field without a colon")?;
                let name = rest[..colon].to_owned();
                self.at += colon + 2;
                let value = self.value()?;
                // Fields of no schema: nothing to compare while they are empty.
                if name != "unknown_tagged_fields" || value != Tree::List(Vec::new()) {
                    fields.push((name, value));
                }
                if self.rest().starts_with(" }") {
                    self.at += 2;
                    return Ok(Tree::Struct(word, fields));
                }
                self.expect(", ")?;
            }
        }
        Ok(if word == "None" { Tree::Null } else { Tree::Word(word) })
    }

    fn items(&mut self, open: char, close: char, mut item: impl FnMut(&mut Self) -> Result<Tree>) -> Result<Vec<Tree>> {
        self.expect(&open.to_string())?;
        let mut items = Vec::new();
        while self.peek() != Some(close) {
            if !items.is_empty() {
                self.expect(", ")?;
            }
            items.push(item(self)?);
        }
        self.at += close.len_utf8();
        Ok(items)
    }

    /// A string or byte string with Rust's escapes.
    fn quoted(&mut self) -> Result<Vec<u8>> {
        self.expect("\"")?;
        let mut out = Vec::new();
        let mut chars = self.rest().char_indices();
        while let Some((index, char)) = chars.next() {
            match char {
                '"' => {
                    self.at += index + 1;
                    return Ok(out);
                }
                '\\' => match chars.next().context("a lone backslash")?.1 {
                    'n' => out.push(b'\n'),
                    'r' => out.push(b'\r'),
                    't' => out.push(b'\t'),
                    '0' => out.push(0),
                    'x' => {
                        let hex: String = chars.by_ref().take(2).map(|(_, char)| char).collect();
                        out.push(u8::from_str_radix(&hex, 16)?);
                    }
                    'u' => {
                        let hex: String =
                            chars.by_ref().skip(1).map(|(_, char)| char).take_while(|&char| char != '}').collect();
                        let char = char::from_u32(u32::from_str_radix(&hex, 16)?).context("no such character")?;
                        out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                    other => out.push(other as u8),
                },
                other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        bail!("a string without its end")
    }

    fn expect(&mut self, text: &str) -> Result<()> {
        if !self.rest().starts_with(text) {
            bail!("expected {text:?} at {:.20}", self.rest());
        }
        self.at += text.len();
        Ok(())
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kafka_protocol::messages::{FetchResponse, TopicName, fetch_response::*};
    use kafka_protocol::protocol::StrBytes;

    #[test]
    fn a_message_becomes_a_tree_of_its_fields() {
        let raw: Vec<u8> = (0..=255).collect();
        let topic = "a \"quoted\" \\ näme\u{7}";
        let response = FetchResponse::default().with_error_code(7).with_responses(vec![
            FetchableTopicResponse::default()
                .with_topic(TopicName(StrBytes::from_string(topic.into())))
                .with_partitions(vec![
                    PartitionData::default()
                        .with_records(Some(Bytes::from(raw.clone())))
                        .with_aborted_transactions(None),
                ]),
        ]);
        let tree = Tree::of(&response).unwrap();
        assert_eq!(tree.field("error_code").unwrap().as_i64(), Some(7));
        let Some(Tree::List(topics)) = tree.field("responses") else { panic!("{tree}") };
        assert_eq!(topics[0].field("topic").unwrap().as_text(), Some(topic));
        let Some(Tree::List(partitions)) = topics[0].field("partitions") else { panic!("{tree}") };
        assert_eq!(partitions[0].field("records"), Some(&Tree::Bytes(raw)));
        assert_eq!(partitions[0].field("aborted_transactions"), Some(&Tree::Null));
        assert_eq!(partitions[0].field("unknown_tagged_fields"), None);
    }
}

//! A setting's value: parsed as Kafka parses it, written as Kafka writes it, refused in Kafka's words.

use super::error::ConfigError;
use super::key::{Check, Key, Type};

/// A parsed value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    Int(i32),
    Short(i16),
    Long(i64),
    Double(f64),
    /// Also of the types class and password.
    Str(String),
    List(Vec<String>),
}

impl Value {
    /// Parses and checks the text of a setting.
    pub fn parse(key: &Key, text: &str) -> Result<Value, ConfigError> {
        let value = parse_type(key, text)?;
        check(key, &value)?;
        Ok(value)
    }

    /// The value of a key's default; None where that is null.
    pub fn default_of(key: &Key) -> Option<Value> {
        key.default.map(|text| Value::parse(key, text).expect("every default in the table satisfies its own row"))
    }

    pub fn as_bool(&self) -> bool {
        matches!(self, Value::Bool(true))
    }

    /// A number of any integer type; 0 for what is none, which a table lookup by the right name never meets.
    pub fn as_i64(&self) -> i64 {
        match self {
            Value::Int(n) => i64::from(*n),
            Value::Short(n) => i64::from(*n),
            Value::Long(n) => *n,
            _ => 0,
        }
    }

    /// 0 for what is none, as above.
    pub fn as_f64(&self) -> f64 {
        match self {
            Value::Double(n) => *n,
            _ => 0.0,
        }
    }

    pub fn as_str(&self) -> &str {
        match self {
            Value::Str(text) => text,
            _ => "",
        }
    }

    pub fn as_list(&self) -> &[String] {
        match self {
            Value::List(elements) => elements,
            _ => &[],
        }
    }
}

impl std::fmt::Display for Value {
    /// The text that DescribeConfigs shows.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Bool(value) => value.fmt(f),
            Value::Int(value) => value.fmt(f),
            Value::Short(value) => value.fmt(f),
            Value::Long(value) => value.fmt(f),
            Value::Double(value) => f.write_str(&java_double(*value)),
            Value::Str(value) => f.write_str(value),
            Value::List(elements) => f.write_str(&elements.join(",")),
        }
    }
}

/// What Java's `String.trim` removes: everything up to the space.
fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c <= ' ')
}

fn parse_type(key: &Key, text: &str) -> Result<Value, ConfigError> {
    let trimmed = trim(text);
    let not_a_number = || ConfigError::invalid(key.name, text, format!("Not a number of type {}", key.kind.name()));
    Ok(match key.kind {
        Type::Bool if trimmed.eq_ignore_ascii_case("true") => Value::Bool(true),
        Type::Bool if trimmed.eq_ignore_ascii_case("false") => Value::Bool(false),
        Type::Bool => {
            return Err(ConfigError::invalid(key.name, text, "Expected value to be either true or false"));
        }
        Type::Int => Value::Int(trimmed.parse().map_err(|_| not_a_number())?),
        Type::Short => Value::Short(trimmed.parse().map_err(|_| not_a_number())?),
        Type::Long => Value::Long(trimmed.parse().map_err(|_| not_a_number())?),
        Type::Double => Value::Double(parse_double(trimmed).ok_or_else(not_a_number)?),
        Type::Str | Type::Class | Type::Password => Value::Str(trimmed.to_owned()),
        Type::List if trimmed.is_empty() => Value::List(Vec::new()),
        Type::List => Value::List(trimmed.split(',').map(|element| trim(element).to_owned()).collect()),
    })
}

/// Java reads `NaN` and `Infinity` in exactly this spelling, where Rust would also read `inf`.
fn parse_double(text: &str) -> Option<f64> {
    let digits = text.trim_start_matches(['+', '-']);
    let spelled = digits == "NaN" || digits == "Infinity";
    let plain = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    (spelled || plain).then(|| text.parse().ok()).flatten()
}

/// Java's `Double.toString`: decimal from 10^-3 up to 10^7, otherwise one digit before the point and an exponent.
fn java_double(value: f64) -> String {
    let size = value.abs();
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    if size == 0.0 || (1e-3..1e7).contains(&size) {
        return format!("{value:?}");
    }
    let text = format!("{value:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

fn check(key: &Key, value: &Value) -> Result<(), ConfigError> {
    let refuse = |reason: String| Err(ConfigError::invalid(key.name, value.to_string(), reason));
    match key.check {
        Check::Any => Ok(()),
        Check::AtLeast(min) if number(value) < min as f64 => refuse(format!("Value must be at least {min}")),
        Check::Between(min, _) if number(value) < min as f64 => refuse(format!("Value must be at least {min}")),
        Check::Between(_, max) if number(value) > max as f64 => refuse(format!("Value must be no more than {max}")),
        Check::BetweenDouble(min, _) if number(value) < min => refuse(format!("Value must be at least {min}")),
        Check::BetweenDouble(_, max) if number(value) > max => refuse(format!("Value must be no more than {max}")),
        Check::AtLeast(_) | Check::Between(..) | Check::BetweenDouble(..) => Ok(()),
        Check::OneOf(words) => check_words(key, value, words),
        Check::OneOfAnyCase(words) if words.iter().any(|word| word.eq_ignore_ascii_case(value.as_str())) => Ok(()),
        Check::OneOfAnyCase(words) => refuse(format!("String must be one of (case insensitive): {}", words.join(", "))),
        Check::NonEmpty if value.as_str().is_empty() => refuse("String must be non-empty".into()),
        Check::NonEmpty => Ok(()),
        Check::GzipLevel if matches!(value.as_i64(), -1 | 1..=9) => Ok(()),
        Check::GzipLevel => refuse("Value must be between 1 and 9 or equal to -1".into()),
        Check::PoolSize if value.as_i64() == -1 || value.as_i64() >= 1 => Ok(()),
        Check::PoolSize => refuse("Value can be -1 or greater than 0".into()),
        Check::MetadataVersion if is_metadata_version(value.as_str()) => Ok(()),
        Check::MetadataVersion => refuse(format!("Version {value} is not a valid version")),
        Check::ThrottledReplicas => check_throttled_replicas(key, value),
    }
}

/// Integers up to 2^53 are exact as doubles, and no bound in the table lies beyond.
fn number(value: &Value) -> f64 {
    match value {
        Value::Double(number) => *number,
        other => other.as_i64() as f64,
    }
}

fn check_words(key: &Key, value: &Value, words: &[&str]) -> Result<(), ConfigError> {
    let refuse =
        |word: &str| ConfigError::invalid(key.name, word, format!("String must be one of: {}", words.join(", ")));
    match value {
        Value::List(elements) => {
            elements.iter().find(|element| !words.contains(&element.as_str())).map_or(Ok(()), |word| Err(refuse(word)))
        }
        other if words.contains(&other.as_str()) => Ok(()),
        other => Err(refuse(other.as_str())),
    }
}

/// Kafka takes `3.9`, `3.9.1` (from 1.0 on the third number is ignored) and `3.9-IV0`.
fn is_metadata_version(text: &str) -> bool {
    let counted = if text.starts_with("0.") { 3 } else { 2 };
    let end = text.match_indices('.').nth(counted - 1).map_or(text.len(), |(at, _)| at);
    let name = &text[..end];
    METADATA_VERSIONS.iter().any(|(release, versions)| {
        name == *release || (0..*versions).any(|number| name == format!("{release}-IV{number}"))
    })
}

/// Each release with how many numbered metadata versions it had.
const METADATA_VERSIONS: &[(&str, u8)] = &[
    ("0.8.0", 0),
    ("0.8.1", 0),
    ("0.8.2", 0),
    ("0.9.0", 0),
    ("0.10.0", 2),
    ("0.10.1", 3),
    ("0.10.2", 1),
    ("0.11.0", 3),
    ("1.0", 1),
    ("1.1", 1),
    ("2.0", 2),
    ("2.1", 3),
    ("2.2", 2),
    ("2.3", 2),
    ("2.4", 2),
    ("2.5", 1),
    ("2.6", 1),
    ("2.7", 3),
    ("2.8", 2),
    ("3.0", 2),
    ("3.1", 1),
    ("3.2", 1),
    ("3.3", 4),
    ("3.4", 1),
    ("3.5", 3),
    ("3.6", 3),
    ("3.7", 5),
    ("3.8", 1),
    ("3.9", 1),
];

fn check_throttled_replicas(key: &Key, value: &Value) -> Result<(), ConfigError> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let pair = |text: &String| text.is_empty() || text.split_once(':').is_some_and(|(p, b)| digits(p) && digits(b));
    let elements = value.as_list();
    if elements.iter().all(pair) || elements.concat() == "*" {
        return Ok(());
    }
    Err(ConfigError::invalid(
        key.name,
        format!("[{}]", elements.join(", ")),
        format!(
            "{} must be the literal '*' or a list of replicas in the following format: \
             [partitionId]:[brokerId],[partitionId]:[brokerId],...",
            key.name
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::keys::{broker_key, topic_key};

    #[test]
    fn doubles_are_written_as_java_writes_them() {
        for (value, text) in [
            (0.0, "0.0"),
            (0.5, "0.5"),
            (2.0, "2.0"),
            (1e-3, "0.001"),
            (1e-5, "1.0E-5"),
            (1.5e-4, "1.5E-4"),
            (9_999_999.0, "9999999.0"),
            (1e7, "1.0E7"),
            (f64::MAX, "1.7976931348623157E308"),
            (f64::INFINITY, "Infinity"),
        ] {
            assert_eq!(Value::Double(value).to_string(), text);
        }
    }

    #[test]
    fn numbers_are_read_as_java_reads_them() {
        let ratio = topic_key("min.cleanable.dirty.ratio").expect("in the table");
        for (text, sound) in
            [("0.5", true), (" 1e-5 ", true), (".5", true), ("inf", false), ("0x1", false), ("", false)]
        {
            assert_eq!(Value::parse(ratio, text).is_ok(), sound, "{text}");
        }
        let retention = topic_key("retention.ms").expect("in the table");
        assert_eq!(Value::parse(retention, "\t+77 "), Ok(Value::Long(77)));
        assert!(Value::parse(retention, "7_000").is_err());
        assert!(Value::parse(retention, "9223372036854775808").is_err());
    }

    #[test]
    fn versions_of_kafka_are_known() {
        let version = broker_key("inter.broker.protocol.version").expect("in the table");
        for (text, sound) in [
            ("3.9", true),
            ("3.9.1", true),
            ("3.9-IV0", true),
            ("3.9-IV1", false),
            ("0.10.2", true),
            ("0.10.2.1", true),
            ("0.10", false),
            ("9.9", false),
            ("", false),
        ] {
            assert_eq!(Value::parse(version, text).is_ok(), sound, "{text}");
        }
    }
}

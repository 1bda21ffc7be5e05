//! The differences between Corelog and Kafka 3.9 that are meant, each with its reason. Any other fails the test.
//!
//! Patterns: `*` stands for any text, `|` separates alternatives. A path is the field's, as in the report
//! (`topics[plain].error_code`); unordered lists are addressed by key, others by index.

use crate::diff::FieldDifference;
use crate::report::Exchange;

pub struct Allowed {
    pub api: &'static str,
    /// The case's name.
    pub case: &'static str,
    pub path: &'static str,
    pub kafka: &'static str,
    pub corelog: &'static str,
    pub reason: &'static str,
}

pub const ALLOWED: &[Allowed] = &[Allowed {
    api: "ApiVersions",
    case: "*",
    path: "api_keys[*]*",
    kafka: "*",
    corelog: "*",
    reason: "only what is served is advertised; the case api-versions-ranges holds the served ranges against Kafka's",
}];

impl Allowed {
    pub fn allows(&self, exchange: &Exchange, difference: &FieldDifference) -> bool {
        matches(self.api, &exchange.api)
            && matches(self.case, &exchange.case)
            && matches(self.path, &difference.path)
            && matches(self.kafka, &difference.oracle)
            && matches(self.corelog, &difference.subject)
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    pattern.split('|').any(|pattern| glob(pattern.as_bytes(), text.as_bytes()))
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let Some(star) = pattern.iter().position(|&byte| byte == b'*') else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(&pattern[..star]) else { return false };
    let pattern = &pattern[star + 1..];
    loop {
        if glob(pattern, rest) {
            return true;
        }
        let Some((_, shorter)) = rest.split_first() else { return false };
        rest = shorter;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(matches("*", "") && matches("a*c", "abc") && matches("a*c", "ac") && matches("x|a*", "ab"));
        assert!(!matches("a*c", "abd") && !matches("a", "ab") && !matches("", "a"));
        assert!(matches("topics[*].error_code", "topics[plain].error_code"));
    }
}

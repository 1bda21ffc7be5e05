//! Naming several topics at once: names, and patterns with `*` and `?`.

use anyhow::bail;
use regex::Regex;

/// The topics that these names and patterns mean, sorted, each once. A plain name is passed on whether or not it
/// exists, so that the cluster's own answer is what the operator sees.
pub fn select(wanted: &[String], existing: &[String]) -> anyhow::Result<Vec<String>> {
    let mut selected = Vec::new();
    for name in wanted {
        if !is_pattern(name) {
            selected.push(name.clone());
            continue;
        }
        let regex = pattern(name)?;
        let before = selected.len();
        selected.extend(existing.iter().filter(|topic| regex.is_match(topic)).cloned());
        if selected.len() == before {
            bail!("no topic matches '{name}'; `corelog topic list` shows what exists");
        }
    }
    selected.sort();
    selected.dedup();
    Ok(selected)
}

/// Topic names never contain these.
pub fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?'])
}

fn pattern(glob: &str) -> anyhow::Result<Regex> {
    let mut text = String::from("^");
    for c in glob.chars() {
        match c {
            '*' => text.push_str(".*"),
            '?' => text.push('.'),
            c => text.push_str(&regex::escape(&c.to_string())),
        }
    }
    text.push('$');
    Ok(Regex::new(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_pick_from_what_exists_and_names_pass_through() {
        let existing = ["app.log", "app-log", "web"].map(str::to_owned);
        let pick = |wanted: &[&str]| select(&wanted.iter().map(|w| w.to_string()).collect::<Vec<_>>(), &existing);
        assert_eq!(pick(&["app.*"]).expect("matches"), ["app.log"]);
        assert_eq!(pick(&["app?log", "web", "web"]).expect("matches"), ["app-log", "app.log", "web"]);
        assert_eq!(pick(&["missing"]).expect("a plain name"), ["missing"]);
        assert!(pick(&["x*"]).is_err());
    }
}

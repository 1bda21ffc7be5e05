//! Scenario texts: what happens to a group, step by step, and what is answered. The README of each folder of them tells its words.

use crate::group::classic::JoinAnswer;
use kafka_protocol::ResponseError;
use std::path::Path;

/// What happens at a step, a line each; an error: the step makes no sense.
pub type Lines = Result<Vec<String>, String>;

/// What a scenario is told of, from its begin to its end.
pub trait Story {
    fn begin() -> Self;
    fn step(&mut self, words: &[String]) -> Lines;
}

/// Runs every text of a folder of the source, which must have no others and at least so many.
pub fn run<S: Story>(folder: &str, at_least: usize) {
    let entries = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    let entries = entries.expect("the scenarios are in the source").map(|entry| entry.expect("listed").path());
    let mut files: Vec<(String, String)> = entries
        .map(|path| {
            let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
            // A folder, and what is no text, is as good as empty: a fault.
            (name, std::fs::read_to_string(&path).unwrap_or_default())
        })
        .collect();
    files.sort();
    let faults = faults::<S>(&files);
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(files.len() > at_least, "only {} files were found, with the README", files.len());
}

/// What is wrong with the files of a folder, by name and text: each but the README is a scenario that runs and goes as it says.
fn faults<S: Story>(files: &[(String, String)]) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, text) in files {
        match name.as_str() {
            "README.md" if text.trim().is_empty() => faults.push(format!("{name} is empty")),
            "README.md" => {}
            _ if name.ends_with(".txt") => faults.extend(fault::<S>(text).map(|fault| format!("{name}{fault}"))),
            _ => faults.push(format!("{name} is not run: a scenario is a .txt")),
        }
    }
    if !files.iter().any(|(name, _)| name == "README.md") {
        faults.push("README.md is missing".to_owned());
    }
    faults
}

/// The first thing that is wrong with a scenario, with its line.
fn fault<S: Story>(text: &str) -> Option<String> {
    if !text.starts_with("# ") {
        return Some(":1: does not begin with what it is about".to_owned());
    }
    let steps = match steps_of(text) {
        Ok(steps) => steps,
        Err(fault) => return Some(fault),
    };
    if steps.iter().all(|step| step.expected.is_empty()) {
        return Some(": nothing ever happens".to_owned());
    }
    let mut story = S::begin();
    for step in steps {
        let happened = story.step(&step.words).unwrap_or_else(|e| vec![format!("cannot be run: {e}")]);
        if happened != step.expected {
            let show = |lines: &[String]| lines.iter().map(|line| format!("\n    {line}")).collect::<String>();
            let (expected, happened) = (show(&step.expected), show(&happened));
            let words = step.words.join(" ");
            return Some(format!(":{}: {words}\n  expected{expected}\n  happened{happened}", step.line));
        }
    }
    None
}

/// A line of a scenario with what must happen then.
struct Step {
    line: usize,
    words: Vec<String>,
    expected: Vec<String>,
}

fn steps_of(text: &str) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let said = line.split('#').next().unwrap_or_default().trim_end();
        let words: Vec<String> = said.split_whitespace().map(str::to_owned).collect();
        match (words.is_empty(), said.starts_with(' '), steps.last_mut()) {
            (true, ..) => {}
            (_, true, Some(step)) => step.expected.push(words.join(" ")),
            (_, true, None) => return Err(format!(":{}: nothing happens before the first step", at + 1)),
            (_, false, _) => steps.push(Step { line: at + 1, words, expected: Vec::new() }),
        }
    }
    Ok(steps)
}

/// The words behind a verb: who, `name=value`, and others.
pub struct Said {
    pub who: String,
    pub pairs: Vec<(String, String)>,
    pub flags: Vec<String>,
}

impl Said {
    pub fn new(words: &[String]) -> Said {
        let mut said = Said { who: String::new(), pairs: Vec::new(), flags: Vec::new() };
        for (at, word) in words.iter().enumerate() {
            match word.split_once('=') {
                Some((name, value)) => said.pairs.push((name.to_owned(), value.to_owned())),
                None if at == 0 => said.who.clone_from(word),
                None => said.flags.push(word.clone()),
            }
        }
        said
    }

    pub fn value(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn owned(&self, name: &str) -> Option<String> {
        self.value(name).map(str::to_owned)
    }

    pub fn number<N: std::str::FromStr>(&self, name: &str) -> Result<Option<N>, String> {
        let parse = |text: &str| text.parse().map_err(|_| format!("{name} is a number"));
        self.value(name).map(parse).transpose()
    }

    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|known| known == flag)
    }

    /// The member id that is claimed: `-` for none, another's with `id=`.
    pub fn id(&self) -> &str {
        self.value("id").unwrap_or(&self.who).trim_matches('-')
    }
}

/// What JoinGroup is answered.
pub fn joined(answer: &JoinAnswer) -> String {
    if let Some(error) = answer.error {
        let id = if answer.member_id.is_empty() { String::new() } else { format!(" id={}", answer.member_id) };
        return format!("{}{id}", error_name(error));
    }
    let leader = answer.leader.as_deref().unwrap_or("-");
    let protocol = answer.protocol.as_deref().unwrap_or("-");
    let skip = if answer.skip_assignment { " skip" } else { "" };
    let id = &answer.member_id;
    let members = answer.members.iter().map(|member| member.member_id.as_str()).collect::<Vec<_>>().join(",");
    let members = if members.is_empty() { String::new() } else { format!(" members={members}") };
    format!("generation={} id={id} leader={leader} protocol={protocol}{skip}{members}", answer.generation)
}

/// What LeaveGroup is answered.
pub fn left(answer: Result<Vec<Option<ResponseError>>, ResponseError>) -> String {
    match answer {
        Ok(each) => format!("left {}", each.into_iter().map(ok_or).collect::<Vec<_>>().join(" ")),
        Err(error) => format!("left {}", error_name(error)),
    }
}

pub fn ok_or(error: Option<ResponseError>) -> String {
    error.map_or("ok".to_owned(), error_name)
}

/// Kafka's own spelling.
pub fn error_name(error: ResponseError) -> String {
    let mut name = String::new();
    for c in format!("{error:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

pub fn error_named(name: &str) -> Result<ResponseError, String> {
    let known = (0..200).filter_map(ResponseError::try_from_code).find(|error| error_name(*error) == name);
    known.ok_or_else(|| format!("{name} is no error of Kafka's"))
}

/// `3s`, `2900ms`.
pub fn millis(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text} is no time");
    match text.strip_suffix("ms") {
        Some(ms) => ms.parse().map_err(|_| wrong()),
        None => text.strip_suffix('s').and_then(|s| s.parse::<i64>().ok()).map(|s| s * 1000).ok_or_else(wrong),
    }
}

/// Happens as it is said, but for `nonsense`.
struct Echo;

impl Story for Echo {
    fn begin() -> Echo {
        Echo
    }

    fn step(&mut self, words: &[String]) -> Lines {
        match words[0].as_str() {
            "nonsense" => Err("it is nonsense".to_owned()),
            _ => Ok(vec![words.join(" ")]),
        }
    }
}

#[test]
fn a_file_that_is_not_run_or_says_nothing_is_a_fault() {
    let faults_of = |name: &str, text: &str| {
        let files = [("README.md", "words"), (name, text)];
        faults::<Echo>(&files.map(|(name, text)| (name.to_owned(), text.to_owned()))).join("; ")
    };
    let good = "# A.\nsay a # as always\n    say a\n\nsay  b\n  say b\n";
    assert_eq!(faults_of("a.txt", good), "");
    assert_eq!(faults_of("a.text", good), "a.text is not run: a scenario is a .txt");
    assert_eq!(faults_of("a.txt.orig", good), "a.txt.orig is not run: a scenario is a .txt");
    assert_eq!(faults_of("a.txt", ""), "a.txt:1: does not begin with what it is about");
    assert_eq!(faults_of("a.txt", "say a\n  say a\n"), "a.txt:1: does not begin with what it is about");
    assert_eq!(faults_of("a.txt", "# A.\n"), "a.txt: nothing ever happens");
    assert_eq!(faults_of("a.txt", "# A.\nsay a\n"), "a.txt: nothing ever happens");
    assert_eq!(faults_of("a.txt", "# A.\n  say a\n"), "a.txt:2: nothing happens before the first step");
    assert_eq!(
        faults_of("a.txt", "# A.\nsay a\n  say b\n"),
        "a.txt:2: say a\n  expected\n    say b\n  happened\n    say a"
    );
    let nonsense = "a.txt:2: nonsense\n  expected\n    a\n  happened\n    cannot be run: it is nonsense";
    assert_eq!(faults_of("a.txt", "# A.\nnonsense\n  a\n"), nonsense);
    assert_eq!(faults_of("README.md", " "), "README.md is empty");
    assert_eq!(faults::<Echo>(&[]), ["README.md is missing"]);
}

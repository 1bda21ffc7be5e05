//! Runs the scenario texts of `src/group/classic/scenarios`; README there tells what they say.

use super::super::*;
use super::simulation::limits;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

#[test]
fn every_scenario_goes_as_kafka_has_it() {
    let mut faults = Vec::new();
    let files = files();
    for file in &files {
        let text = std::fs::read_to_string(file).expect("a scenario is a text");
        let (mut story, mut steps) = (Story::new(), 0);
        for step in steps_of(&text) {
            steps += 1;
            let happened = story.step(&step.words).unwrap_or_else(|e| vec![format!("cannot be run: {e}")]);
            if happened != step.expected {
                let (name, line) = (file.file_name().expect("a file").to_string_lossy(), step.line);
                let show = |lines: &[String]| lines.iter().map(|line| format!("\n    {line}")).collect::<String>();
                let (expected, happened) = (show(&step.expected), show(&happened));
                faults.push(format!(
                    "{name}:{line}: {}\n  expected{expected}\n  happened{happened}",
                    step.words.join(" ")
                ));
                break;
            }
        }
        assert!(steps > 0, "{} says nothing", file.display());
    }
    assert!(files.len() >= 60, "only {} scenarios were found", files.len());
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/group/classic/scenarios");
    let entries = std::fs::read_dir(folder).expect("the scenarios are in the source");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("listed").path()).collect();
    files.retain(|file| file.extension().is_some_and(|ext| ext == "txt"));
    files.sort();
    files
}

/// A line of a scenario with what must happen then.
struct Step {
    line: usize,
    words: Vec<String>,
    expected: Vec<String>,
}

fn steps_of(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let said = line.split('#').next().unwrap_or_default().trim_end();
        let words: Vec<String> = said.split_whitespace().map(str::to_owned).collect();
        match (words.is_empty(), said.starts_with(' '), steps.last_mut()) {
            (true, ..) => {}
            (_, true, Some(step)) => step.expected.push(words.join(" ")),
            (_, true, None) => panic!("line {}: nothing happens before the first step", at + 1),
            (_, false, _) => steps.push(Step { line: at + 1, words, expected: Vec::new() }),
        }
    }
    steps
}

struct Story {
    now_ms: i64,
    group: Group,
    /// Who each waiter is.
    waiters: Vec<String>,
    storing: VecDeque<Ticket>,
    newest: Option<GroupRecord>,
}

type Lines = Result<Vec<String>, String>;

impl Story {
    fn new() -> Story {
        let group = Group::new(limits(), 0);
        Story { now_ms: 0, group, waiters: Vec::new(), storing: VecDeque::new(), newest: None }
    }

    fn step(&mut self, words: &[String]) -> Lines {
        let (verb, rest) = words.split_first().ok_or("nothing is said")?;
        let said = Said::new(rest);
        match verb.as_str() {
            "limits" => self.limits(&said),
            "join" => self.join(&said),
            "sync" => self.sync(&said),
            "heartbeat" => {
                let waiter = self.waiter(&said.who);
                let claim = self.claim(&said)?;
                Ok(self.feed(Event::Heartbeat(waiter, claim)))
            }
            "leave" => self.leave(&said),
            "commit" => {
                let claim = self.claim(&said)?;
                let allowed = self.group.may_commit(self.now_ms, &claim);
                Ok(vec![allowed.map_or_else(error_name, |()| "ok".to_owned())])
            }
            "stored" => {
                let ticket = self.storing.pop_front().ok_or("nothing is being stored")?;
                let error = said.value("error").map(error_named).transpose()?;
                Ok(self.feed(Event::Stored(ticket, error)))
            }
            "pass" => self.pass(millis(&said.who)?),
            "unload" => Ok(self.feed(Event::Ended(ResponseError::NotCoordinator))),
            "load" => {
                let record = self.newest.clone().ok_or("nothing was stored yet")?;
                self.group = Group::restored(self.group.limits, &record, self.now_ms);
                Ok(Vec::new())
            }
            "state" => Ok(vec![self.state()]),
            other => Err(format!("{other} is no step")),
        }
    }

    fn limits(&mut self, said: &Said) -> Lines {
        let mut limits = limits();
        if let Some(most) = said.value("max") {
            limits.members_max = most.parse().map_err(|_| "max is a number")?;
        }
        if let Some(delay) = said.value("delay") {
            limits.initial_delay_ms = millis(delay)?;
        }
        self.group.limits = limits;
        Ok(Vec::new())
    }

    fn join(&mut self, said: &Said) -> Lines {
        let waiter = self.waiter(&said.who);
        let protocols = said.value("protocols").unwrap_or("range,roundrobin").split(',');
        let protocol = |text: &str| {
            let (name, metadata) = text.split_once('/').unwrap_or((text, ""));
            (name.to_owned(), Bytes::copy_from_slice(metadata.as_bytes()))
        };
        let time = |name: &str, otherwise: &str| millis(said.value(name).unwrap_or(otherwise)).map(|ms| ms as i32);
        let request = JoinRequest {
            member_id: if said.has("new") { String::new() } else { said.id().to_owned() },
            fresh_id: said.who.clone(),
            instance_id: said.value("instance").map(str::to_owned),
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            session_timeout_ms: time("session", "10s")?,
            rebalance_timeout_ms: time("rebalance", "60s")?,
            protocol_type: said.value("type").unwrap_or(CONSUMER).trim_matches('-').to_owned(),
            protocols: protocols.filter(|text| *text != "-").map(protocol).collect(),
            requires_known_id: said.has("requires-id"),
            can_skip_assignment: said.has("can-skip"),
        };
        Ok(self.feed(Event::Join(waiter, request)))
    }

    fn sync(&mut self, said: &Said) -> Lines {
        let waiter = self.waiter(&said.who);
        let own = ["generation", "instance", "type", "protocol", "id"];
        let assignments = said.pairs.iter().filter(|(name, _)| !own.contains(&name.as_str()));
        let request = SyncRequest {
            claim: self.claim(said)?,
            protocol_type: said.value("type").map(str::to_owned),
            protocol: said.value("protocol").map(str::to_owned),
            assignments: assignments.map(|(id, part)| (id.clone(), Bytes::copy_from_slice(part.as_bytes()))).collect(),
        };
        Ok(self.feed(Event::Sync(waiter, request)))
    }

    /// `leave a b/i /j`: by member id, by both, by instance id alone.
    fn leave(&mut self, said: &Said) -> Lines {
        let waiter = self.waiter("");
        let leaving = |text: &String| {
            let (member_id, instance_id) = text.split_once('/').map_or((text.as_str(), None), |(m, i)| (m, Some(i)));
            Leaving { member_id: member_id.to_owned(), instance_id: instance_id.map(str::to_owned) }
        };
        let all: Vec<Leaving> = std::iter::once(&said.who).chain(&said.flags).map(leaving).collect();
        Ok(self.feed(Event::Leave(waiter, all)))
    }

    /// Time passes; what is due happens when it is due, and is told with how much has passed by then.
    fn pass(&mut self, ms: i64) -> Lines {
        let (from_ms, until_ms) = (self.now_ms, self.now_ms + ms);
        let mut lines = Vec::new();
        while let Some(due_ms) = self.group.next_deadline_ms().filter(|due_ms| *due_ms <= until_ms) {
            self.now_ms = self.now_ms.max(due_ms);
            let passed_ms = self.now_ms - from_ms;
            lines.extend(self.feed(Event::Tick).into_iter().map(|line| format!("{passed_ms}ms {line}")));
        }
        self.now_ms = until_ms;
        Ok(lines)
    }

    fn claim(&self, said: &Said) -> Result<MemberClaim, String> {
        let generation = match said.value("generation") {
            Some(number) => number.parse().map_err(|_| format!("{number} is no generation"))?,
            None => self.group.generation(),
        };
        let instance_id = said.value("instance").map(str::to_owned);
        Ok(MemberClaim { generation, member_id: said.id().to_owned(), instance_id })
    }

    fn waiter(&mut self, who: &str) -> Waiter {
        self.waiters.push(who.to_owned());
        Waiter(self.waiters.len() as u64 - 1)
    }

    fn feed(&mut self, event: Event) -> Vec<String> {
        let effects = self.group.step(self.now_ms, event);
        effects.into_iter().map(|effect| self.told(effect)).collect()
    }

    fn told(&mut self, effect: Effect) -> String {
        let who = |waiter: Waiter| self.waiters[waiter.0 as usize].as_str();
        match effect {
            Effect::Joined(waiter, answer) => format!("joined {} {}", who(waiter), joined(&answer)),
            Effect::Synced(waiter, SyncAnswer { error: Some(error), .. }) => {
                format!("synced {} {}", who(waiter), error_name(error))
            }
            Effect::Synced(waiter, answer) => format!("synced {} {}", who(waiter), part(&answer.assignment)),
            Effect::Beaten(waiter, error) => format!("heard {} {}", who(waiter), ok_or(error)),
            Effect::Left(_, Ok(each)) => format!("left {}", each.into_iter().map(ok_or).collect::<Vec<_>>().join(" ")),
            Effect::Left(_, Err(error)) => format!("left {}", error_name(error)),
            Effect::Store(ticket, record) => {
                self.storing.push_back(ticket);
                let members = record.members.iter().map(|m| format!(" {}={}", m.member_id, part(&m.assignment)));
                let members = members.collect::<String>();
                let line = format!("store generation={}{members}", record.generation);
                self.newest = Some(record);
                line
            }
        }
    }

    fn state(&self) -> String {
        let members = self.group.members().iter().map(|member| format!(" {}", member.id)).collect::<String>();
        let leader = self.group.leader().map(|leader| format!(" leader={leader}")).unwrap_or_default();
        format!("{:?} generation={}{leader}:{members}", self.group.state(), self.group.generation())
    }
}

/// The words behind a verb: who, `name=value`, and others.
struct Said {
    who: String,
    pairs: Vec<(String, String)>,
    flags: Vec<String>,
}

impl Said {
    fn new(words: &[String]) -> Said {
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

    fn value(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|known| known == flag)
    }

    /// The member id that is claimed: `-` for none, another's with `id=`.
    fn id(&self) -> &str {
        self.value("id").unwrap_or(&self.who).trim_matches('-')
    }
}

fn joined(answer: &JoinAnswer) -> String {
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

fn part(assignment: &[u8]) -> String {
    match std::str::from_utf8(assignment).expect("scenarios assign texts") {
        "" => "-".to_owned(),
        text => text.to_owned(),
    }
}

fn ok_or(error: Option<ResponseError>) -> String {
    error.map_or("ok".to_owned(), error_name)
}

/// Kafka's own spelling.
fn error_name(error: ResponseError) -> String {
    let mut name = String::new();
    for c in format!("{error:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

fn error_named(name: &str) -> Result<ResponseError, String> {
    let known = (0..200).filter_map(ResponseError::try_from_code).find(|error| error_name(*error) == name);
    known.ok_or_else(|| format!("{name} is no error of Kafka's"))
}

/// `3s`, `2900ms`.
fn millis(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text} is no time");
    match text.strip_suffix("ms") {
        Some(ms) => ms.parse().map_err(|_| wrong()),
        None => text.strip_suffix('s').and_then(|s| s.parse::<i64>().ok()).map(|s| s * 1000).ok_or_else(wrong),
    }
}

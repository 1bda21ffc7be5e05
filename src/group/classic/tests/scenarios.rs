//! Runs the scenario texts of `src/group/classic/scenarios`; README there tells what they say.

use super::super::*;
use super::simulation::limits;
use crate::group::scenario::{self, Lines, Said, error_name, error_named, joined, left, millis, ok_or};
use std::collections::VecDeque;

#[test]
fn every_scenario_goes_as_kafka_has_it() {
    scenario::run::<Story>("src/group/classic/scenarios", 60);
}

struct Story {
    now_ms: i64,
    group: Group,
    /// Who each waiter is.
    waiters: Vec<String>,
    storing: VecDeque<Ticket>,
    newest: Option<GroupRecord>,
}

impl scenario::Story for Story {
    fn begin() -> Story {
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
}

impl Story {
    fn limits(&mut self, said: &Said) -> Lines {
        let mut limits = limits();
        if let Some(most) = said.number("max")? {
            limits.members_max = most;
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
        let generation = said.number("generation")?.unwrap_or(self.group.generation());
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
            Effect::Left(_, answer) => left(answer),
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

fn part(assignment: &[u8]) -> String {
    match std::str::from_utf8(assignment).expect("scenarios assign texts") {
        "" => "-".to_owned(),
        text => text.to_owned(),
    }
}

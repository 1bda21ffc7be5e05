//! Runs the scenario texts of `src/group/consumer/scenarios`; README there tells what they say.

use super::super::member::{JOINS, LEAVES, LEAVES_FOR_A_WHILE};
use super::super::*;
use super::classic_stories::subscription_of;
use super::scenario_words::{claim, list, named, partitions, show, show_named, told};
use super::{drop_topic, set_topic};
use crate::group::classic::{self, CONSUMER, Effect, Event, GroupRecord, JoinAnswer, JoinRequest, Leaving, SyncAnswer};
use crate::group::classic::{SyncRequest, Ticket, Waiter};
use crate::group::coordinator::kind::{Found, Kind};
use crate::group::scenario::{self, Lines, Said, error_name, joined, left, millis, ok_or};
use crate::group::subscription;
use bytes::Bytes;
use std::collections::VecDeque;

#[test]
fn every_scenario_goes_as_kafka_has_it() {
    scenario::run::<Story>("src/group/consumer/scenarios", 130);
}

/// A group with its log, as its coordinator has them; what it stores is stored at once.
struct Story {
    now_ms: i64,
    image: ClusterImage,
    /// As many as were ever made: the next one's id.
    topics: u128,
    limits: Limits,
    classic_limits: classic::Limits,
    kind: Option<Kind>,
    /// The log: the newest classic record, and all others.
    classic: Option<GroupRecord>,
    log: Vec<Record>,
    waiters: Vec<String>,
    /// What is to be stored cannot be.
    log_refuses: bool,
}

impl scenario::Story for Story {
    fn begin() -> Story {
        let mut story = Story {
            now_ms: 0,
            image: ClusterImage::default(),
            topics: 0,
            limits: super::limits(),
            classic_limits: classic::Limits {
                members_max: usize::MAX,
                session_min_ms: 6_000,
                session_max_ms: 1_800_000,
                initial_delay_ms: 0,
            },
            kind: None,
            classic: None,
            log: Vec::new(),
            waiters: Vec::new(),
            log_refuses: false,
        };
        story.topic("t", 4);
        story
    }

    fn step(&mut self, words: &[String]) -> Lines {
        let (verb, rest) = words.split_first().ok_or("nothing is said")?;
        let said = Said::new(rest);
        match verb.as_str() {
            "limits" => self.set_limits(&said),
            "topic" => match said.flags.first().map(String::as_str) {
                Some("gone") => {
                    drop_topic(&mut self.image, &said.who);
                    Ok(Vec::new())
                }
                count => {
                    let count = count.and_then(|count| count.parse().ok()).ok_or("a topic has partitions")?;
                    self.topic(&said.who, count);
                    Ok(Vec::new())
                }
            },
            "join" => self.heartbeat(&said, JOINS),
            "beat" => {
                let known = self.consumer().and_then(|group| group.member(&said.who)).map(Member::epoch);
                let epoch = said.number("epoch")?.or(known);
                self.heartbeat(&said, epoch.ok_or("who is no member has to say epoch=")?)
            }
            "leave" => self.heartbeat(&said, LEAVES),
            "away" => self.heartbeat(&said, LEAVES_FOR_A_WHILE),
            "commit" | "fetch" => self.offsets(verb, &said),
            "classic" => {
                let (verb, rest) = rest.split_first().ok_or("classic what?")?;
                self.of_classic(verb, &Said::new(rest))
            }
            "pass" => self.pass(millis(&said.who)?),
            "unload" => {
                let waiting = self.feed_classic(Event::Ended(ResponseError::NotCoordinator));
                self.kind = None;
                Ok(waiting)
            }
            "load" => {
                self.load();
                Ok(Vec::new())
            }
            "log" => {
                self.log_refuses = said.who == "refuses";
                Ok(Vec::new())
            }
            "forget" => self.forget(),
            "state" => Ok(vec![self.state()]),
            other => Err(format!("{other} is no step")),
        }
    }
}

impl Story {
    fn topic(&mut self, name: &str, partitions: usize) {
        let id = self.image.topic(name).map(|topic| topic.id.0.as_u128()).unwrap_or_else(|| {
            self.topics += 1;
            self.topics
        });
        set_topic(&mut self.image, name, id, partitions);
    }

    fn set_limits(&mut self, said: &Said) -> Lines {
        let limits = &mut self.limits;
        limits.members_max = said.number("max")?.unwrap_or(limits.members_max);
        limits.policy = said.value("policy").map_or(limits.policy, Policy::parse);
        if let Some(session) = said.value("session") {
            limits.session_ms = i32::try_from(millis(session)?).map_err(|_| "a session is shorter")?;
        }
        if let Some(names) = said.value("assignors") {
            let assignors = names.split(',').map(|name| Assignor::parse(name).ok_or("no assignor"));
            limits.assignors = assignors.collect::<Result<_, _>>()?;
        }
        self.classic_limits.members_max = said.number("classic-max")?.unwrap_or(self.classic_limits.members_max);
        Ok(Vec::new())
    }

    fn consumer(&self) -> Option<&Group> {
        self.kind.as_ref().and_then(Kind::consumer)
    }

    fn heartbeat(&mut self, said: &Said, epoch: i32) -> Lines {
        let joins = epoch == JOINS;
        let time = |name| said.value(name).map(|text| millis(text).map(|ms| ms as i32)).transpose();
        let names = |text: &str| list(text).map(str::to_owned).collect();
        let default_topics = (joins && said.value("regex").is_none()).then_some("t");
        let request = Heartbeat {
            group_id: "g".to_owned(),
            member_id: said.id().to_owned(),
            epoch,
            instance_id: said.owned("instance"),
            rack_id: said.owned("rack"),
            rebalance_timeout_ms: time("rebalance")?.or((joins && !said.has("bare")).then_some(60_000)),
            topics: said.value("topics").or(default_topics.filter(|_| !said.has("bare"))).map(names),
            regex: said.value("regex").map(|regex| regex.trim_matches('-').to_owned()),
            assignor: said.owned("assignor"),
            owned: match said.value("owns") {
                Some(owned) => Some(partitions(owned, &self.image)?),
                None => (joins && !said.has("bare")).then(Partitions::new),
            },
            client_id: "c".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
        };
        match self.heard(&request) {
            Err(Refusal { error, message }) => {
                // In one line, whatever the pattern's library says.
                let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
                let told = format!("told {} {}", said.who, error_name(error));
                let because = (!message.is_empty()).then(|| format!("because {message}"));
                Ok([told].into_iter().chain(because).collect())
            }
            Ok((mut lines, answer)) => {
                let assigned = answer.assignment.map(|assigned| format!(" {}", show(&assigned, &self.image)));
                lines.push(format!("told {} epoch={}{}", said.who, answer.epoch, assigned.unwrap_or_default()));
                if request.epoch < JOINS {
                    lines.extend(self.downgrade());
                }
                Ok(lines)
            }
        }
    }

    fn heard(&mut self, request: &Heartbeat) -> Result<(Vec<String>, Beaten), Refusal> {
        let env = Env::new(&self.image, &self.limits);
        request.check(env.limits)?;
        let found = Found::by(self.kind.as_ref(), self.now_ms, &env, request)?;
        let wanted = found.group().patterns_wanted(self.now_ms, &env, request);
        let matches = Matches::of(&wanted, &self.image, || true);
        let env = Env { matches: &matches, ..env };
        let decision = found.group().heartbeat(self.now_ms, &env, request)?;
        if self.log_refuses && !decision.records.is_empty() {
            return Err(Refusal::new(ResponseError::NotCoordinator, ""));
        }
        let mut lines = Vec::new();
        if let Found::Made { was, group, records } = found {
            let forgets_classic = was.is_some();
            if forgets_classic {
                lines.extend(self.feed_classic(Event::Ended(ResponseError::RebalanceInProgress)));
                self.classic = None;
                lines.push("store classic gone".to_owned());
            }
            self.kind = Some(Kind::Consumer(group));
            lines.extend(self.stored(&records));
        }
        let (stored, answer) = self.accepted(decision);
        lines.extend(stored);
        Ok((lines, answer))
    }

    /// Takes a decision over; tells what it stores.
    fn accepted<A>(&mut self, decision: Decision<A>) -> (Option<String>, A) {
        let line = self.stored(&decision.records);
        let Some(Kind::Consumer(group)) = &mut self.kind else { panic!("only those of the new protocol decide") };
        let answer = group.accept(decision);
        let found = super::reloaded(&self.log, self.now_ms);
        assert_eq!((&found.members, &found.targets), (&group.members, &group.targets), "the log says the same");
        (line, answer)
    }

    fn stored(&mut self, records: &[Record]) -> Option<String> {
        self.log.extend(records.iter().cloned());
        let records: Vec<String> = records.iter().map(|record| told(record, &self.image)).collect();
        (!records.is_empty()).then(|| format!("store {}", records.join("; ")))
    }

    fn offsets(&mut self, verb: &str, said: &Said) -> Lines {
        let id = said.id().to_owned();
        let epoch = said.number("epoch")?;
        let allowed = match &mut self.kind {
            None if epoch.is_none_or(|epoch| epoch < 0) => Ok(()),
            None => Err(ResponseError::IllegalGeneration),
            Some(Kind::Consumer(group)) => {
                let epoch = epoch.or(group.member(&id).map(Member::epoch)).unwrap_or(-1);
                match verb {
                    "commit" => group.may_commit(&id, epoch, !said.has("old")),
                    _ => group.may_fetch(Some(&*id).filter(|id| !id.is_empty()), epoch),
                }
            }
            Some(Kind::Classic(group)) => {
                let generation = epoch.unwrap_or(group.generation());
                group.may_commit(self.now_ms, &claim(said, generation))
            }
        };
        Ok(vec![allowed.map_or_else(error_name, |()| "ok".to_owned())])
    }

    fn of_classic(&mut self, verb: &str, said: &Said) -> Lines {
        let waiter = self.waiter(&said.who);
        let known = match &self.kind {
            Some(Kind::Consumer(group)) => group.member(said.id()).map(Member::epoch),
            Some(Kind::Classic(group)) => Some(group.generation()),
            None => None,
        };
        let generation = said.number("generation")?.or(known).unwrap_or(0);
        let event = match verb {
            "join" => {
                let mut lines = Vec::new();
                if self.consumer().is_some_and(Group::is_empty) {
                    lines.extend(self.forget()?);
                }
                let request = self.join_request(said)?;
                let empty = || Kind::Classic(Box::new(classic::Group::new(self.classic_limits, self.now_ms)));
                self.kind.get_or_insert_with(empty);
                lines.extend(self.feed(Event::Join(waiter, request)));
                return Ok(lines);
            }
            "sync" => {
                let own = ["generation", "instance", "type", "protocol", "id"];
                let parts = said.pairs.iter().filter(|(name, _)| !own.contains(&name.as_str()));
                let part =
                    |(id, part): &(String, String)| Ok((id.clone(), subscription::write_assignment(1, &named(part)?)));
                let request = SyncRequest {
                    claim: claim(said, generation),
                    protocol_type: said.owned("type"),
                    protocol: said.owned("protocol"),
                    assignments: parts.map(part).collect::<Result<_, String>>()?,
                };
                Event::Sync(waiter, request)
            }
            "heartbeat" => Event::Heartbeat(waiter, claim(said, generation)),
            "leave" => {
                let leaving = |text: &String| {
                    let (member_id, instance_id) =
                        text.split_once('/').map_or((text.as_str(), None), |(m, i)| (m, Some(i)));
                    Leaving { member_id: member_id.to_owned(), instance_id: instance_id.map(str::to_owned) }
                };
                Event::Leave(waiter, std::iter::once(&said.who).chain(&said.flags).map(leaving).collect())
            }
            other => return Err(format!("classic {other} is no step")),
        };
        Ok(self.feed(event))
    }

    fn join_request(&self, said: &Said) -> Result<JoinRequest, String> {
        let time = |name: &str, otherwise: &str| millis(said.value(name).unwrap_or(otherwise)).map(|ms| ms as i32);
        let topics: Vec<&str> = list(said.value("topics").unwrap_or("t")).collect();
        let owned = named(said.value("owns").unwrap_or("-"))?;
        let told = match said.has("nonsense") {
            true => Bytes::from_static(b"x"),
            false => subscription_of(&topics, &owned),
        };
        let protocols = list(said.value("protocols").unwrap_or("range"));
        Ok(JoinRequest {
            member_id: if said.has("new") { String::new() } else { said.id().to_owned() },
            fresh_id: said.who.clone(),
            instance_id: said.owned("instance"),
            client_id: "c".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            session_timeout_ms: time("session", "45s")?,
            rebalance_timeout_ms: time("rebalance", "60s")?,
            protocol_type: said.value("type").unwrap_or(CONSUMER).to_owned(),
            protocols: protocols.map(|name| (name.to_owned(), told.clone())).collect(),
            requires_known_id: said.has("requires-id"),
            can_skip_assignment: false,
        })
    }

    /// What is said in the words of the classic protocol, to a group of either.
    fn feed(&mut self, event: Event) -> Vec<String> {
        let Some(Kind::Consumer(group)) = &self.kind else { return self.feed_classic(event) };
        let env = Env::new(&self.image, &self.limits);
        let now_ms = self.now_ms;
        match event {
            Event::Join(waiter, request) => {
                let decided = group.join_classic(now_ms, &env, &request);
                let mut lines = self.answered(decided, |story, answer| {
                    let refused = |(id, error): (String, _)| JoinAnswer::refused(&id, error);
                    story.effect(Effect::Joined(waiter, answer.unwrap_or_else(refused)))
                });
                lines.extend(self.downgrade());
                lines
            }
            Event::Sync(waiter, request) => {
                let decided = group.sync_classic(now_ms, &env, &request);
                self.answered(decided, |story, answer| {
                    story.effect(Effect::Synced(waiter, answer.unwrap_or_else(SyncAnswer::refused)))
                })
            }
            Event::Heartbeat(waiter, claim) => {
                let decided = group.heartbeat_classic(now_ms, &env, &claim);
                self.answered(decided, |story, answer| {
                    story.effect(Effect::Beaten(waiter, answer.unwrap_or_else(Some)))
                })
            }
            Event::Leave(waiter, leaving) => {
                let decided = Ok::<_, ResponseError>(group.leave_classic(&env, &leaving));
                let mut lines = self.answered(decided, |story, answer| story.effect(Effect::Left(waiter, answer)));
                lines.extend(self.downgrade());
                lines
            }
            Event::Tick | Event::Stored(..) | Event::Ended(_) | Event::Rebalance => Vec::new(),
        }
    }

    fn answered<A, E>(
        &mut self,
        decided: Result<Decision<A>, E>,
        tell: impl FnOnce(&mut Story, Result<A, E>) -> Vec<String>,
    ) -> Vec<String> {
        let (mut lines, answer) = match decided {
            Err(error) => (Vec::new(), Err(error)),
            Ok(decision) => {
                let (line, answer) = self.accepted(decision);
                (Vec::from_iter(line), Ok(answer))
            }
        };
        lines.extend(tell(self, answer));
        lines
    }

    fn feed_classic(&mut self, event: Event) -> Vec<String> {
        let (mut lines, mut events) = (Vec::new(), VecDeque::from([event]));
        while let Some(event) = events.pop_front() {
            let Some(Kind::Classic(group)) = &mut self.kind else { break };
            for effect in group.step(self.now_ms, event) {
                if let Effect::Store(ticket, _) = &effect {
                    events.push_back(Event::Stored(Ticket(ticket.0), None));
                }
                lines.extend(self.effect(effect));
            }
        }
        lines
    }

    fn effect(&mut self, effect: Effect) -> Vec<String> {
        let who = |waiter: Waiter| self.waiters[waiter.0 as usize].as_str();
        vec![match effect {
            Effect::Joined(waiter, answer) => format!("joined {} {}", who(waiter), joined(&answer)),
            Effect::Synced(waiter, SyncAnswer { error: Some(error), .. }) => {
                format!("synced {} {}", who(waiter), error_name(error))
            }
            Effect::Synced(waiter, answer) => format!("synced {} {}", who(waiter), show_named(&answer.assignment)),
            Effect::Beaten(waiter, error) => format!("heard {} {}", who(waiter), ok_or(error)),
            Effect::Left(_, answer) => left(answer),
            Effect::Store(_, record) => self.store_classic(record),
        }]
    }

    fn store_classic(&mut self, record: GroupRecord) -> String {
        let members = record.members.iter().map(|m| format!(" {}={}", m.member_id, show_named(&m.assignment)));
        let line = format!("store classic generation={}{}", record.generation, members.collect::<String>());
        self.classic = Some(record);
        line
    }

    fn downgrade(&mut self) -> Vec<String> {
        let env = Env::new(&self.image, &self.limits);
        let Some(Kind::Consumer(group)) = &self.kind else { return Vec::new() };
        let Some(Downgraded { record, rebalances }) =
            group.downgraded(&env, self.classic_limits.members_max, self.now_ms)
        else {
            return Vec::new();
        };
        self.log.extend(group.gone());
        let restored = classic::Group::restored(self.classic_limits, &record, self.now_ms);
        self.kind = Some(Kind::Classic(Box::new(restored)));
        let mut lines = vec!["store consumer gone".to_owned(), self.store_classic(record)];
        if rebalances {
            lines.extend(self.feed_classic(Event::Rebalance));
        }
        lines
    }

    /// Time passes; what is due happens when it is due, and is told with how much has passed by then.
    fn pass(&mut self, ms: i64) -> Lines {
        let (from_ms, until_ms) = (self.now_ms, self.now_ms + ms);
        let mut lines = Vec::new();
        let next = |story: &Story| story.kind.as_ref().and_then(Kind::next_deadline_ms);
        while let Some(due_ms) = next(self).filter(|due_ms| *due_ms <= until_ms) {
            self.now_ms = self.now_ms.max(due_ms);
            let passed_ms = self.now_ms - from_ms;
            let due = self.consumer().map_or_else(Vec::new, |group| group.due(self.now_ms, 1));
            let happened = match due.first() {
                Some((id, timer)) => self.fenced(id, *timer),
                None => self.feed_classic(Event::Tick),
            };
            lines.extend(happened.into_iter().map(|line| format!("{passed_ms}ms {line}")));
        }
        self.now_ms = until_ms;
        Ok(lines)
    }

    fn fenced(&mut self, id: &MemberId, timer: Timer) -> Vec<String> {
        let env = Env::new(&self.image, &self.limits);
        let group = self.consumer().expect("its member is due");
        let decision = group.fence(&env, std::slice::from_ref(id));
        let mut lines = vec![format!("{timer:?} of {id} ends")];
        lines.extend(self.accepted(decision).0);
        lines.extend(self.downgrade());
        lines
    }

    fn load(&mut self) {
        let mut stored = Stored::default();
        self.log.iter().cloned().for_each(|record| stored.take(record));
        self.kind = match &self.classic {
            _ if stored.exists() => Some(Kind::Consumer(Box::new(Group::restored(stored, &self.limits, self.now_ms)))),
            Some(record) => {
                let group = classic::Group::restored(self.classic_limits, record, self.now_ms);
                Some(Kind::Classic(Box::new(group)))
            }
            None => None,
        };
    }

    /// The group is deleted, as far as it lets itself be.
    fn forget(&mut self) -> Lines {
        let gone = match &self.kind {
            Some(kind) if kind.is_forgettable() => kind.consumer().map(Group::gone).unwrap_or_default(),
            _ => return Err("who has members is not forgotten".to_owned()),
        };
        self.kind = None;
        self.classic = None;
        Ok(Vec::from_iter(self.stored(&gone)))
    }

    fn waiter(&mut self, who: &str) -> Waiter {
        self.waiters.push(who.to_owned());
        Waiter(self.waiters.len() as u64 - 1)
    }

    fn state(&self) -> String {
        match &self.kind {
            None => "none".to_owned(),
            Some(Kind::Classic(group)) => {
                let members: String = group.members().iter().map(|member| format!(" {}", member.id)).collect();
                format!("classic {} generation={}:{members}", group.state().name(), group.generation())
            }
            Some(Kind::Consumer(group)) => {
                let member = |m: &Member| format!(" {}={}/{:?}", m.id, m.epoch(), m.current.state);
                let members: String = group.members().map(member).collect();
                let (epoch, assignment) = (group.epoch(), group.assignment_epoch());
                format!("consumer {} epoch={epoch} assignment={assignment}:{members}", group.state().name())
            }
        }
    }
}

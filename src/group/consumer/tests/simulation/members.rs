//! What the members do, and what happens to them.

use super::*;

impl Sim {
    pub(super) fn mishap(&mut self) {
        let (now_ms, at) = (self.now_ms, self.rng.usize(0..self.clients.len()));
        match self.rng.u32(0..700) {
            0 | 1 => self.broker.crash(now_ms),
            2..5 => self.clients[at].paused_until_ms = now_ms + self.rng.i64(0..90_000),
            5..8 => {
                let until_ms = now_ms + self.rng.i64(0..60_000);
                self.end(at, until_ms);
            }
            8..12 => {
                let is_static = self.clients[at].instance_id.is_some();
                let leaves = if is_static && self.rng.bool() { LEAVES_FOR_A_WHILE } else { LEAVES };
                self.clients[at].leaves = Some(leaves);
            }
            12 | 13 => {
                let name = *self.rng.choice(&["a", "b", "c"]).expect("some");
                // No topic gets the id of one that was deleted.
                let fresh = (self.rng.u128(10..), 1);
                let known = self.image.topic(name).map(|topic| (topic.id.0.as_u128(), topic.partitions.len() + 1));
                let (id, more) = known.unwrap_or(fresh);
                set_topic(&mut self.image, name, id, more.min(self.partitions_max));
            }
            14 => drop_topic(&mut self.image, "c"),
            15 => {
                let id = self.rng.u128(10..);
                drop_topic(&mut self.image, "b");
                set_topic(&mut self.image, "b", id, self.rng.clone().usize(1..6));
            }
            16 | 17 => {
                let some = self.rng.usize(1..4);
                let client = &mut self.clients[at];
                client.topics = Some(topics(&["c", "b", "a"][..some]));
                client.is_full = true;
                if let Some(classic) = &mut client.classic {
                    classic.next = Next::Join;
                } else {
                    let regex = self.rng.bool().then(|| self.rng.choice(["", "[ac]", ".*"]).expect("some"));
                    client.regex = Some(regex.unwrap_or_default().to_owned());
                }
            }
            18..22 => self.change_protocol(at),
            // All are moved from one protocol to the other, one by one but soon after each other.
            22 => {
                let is_classic = self.rng.bool();
                for at in 0..self.clients.len() {
                    if self.clients[at].classic.is_some() != is_classic {
                        self.change_protocol(at);
                    }
                }
            }
            _ => {}
        }
    }

    /// It is stopped, and started again with the other protocol.
    fn change_protocol(&mut self, at: usize) {
        let until_ms = self.now_ms + self.rng.i64(0..20_000);
        if self.rng.bool() {
            self.say_that_it_leaves(at, LEAVES);
        }
        self.end(at, until_ms);
        let client = &mut self.clients[at];
        client.classic = match client.classic {
            None => Some(Classic::default()),
            Some(_) => None,
        };
        (client.instance_id, client.regex) = (None, None);
    }

    /// The process ends, and another one takes its place, under another id.
    fn end(&mut self, at: usize, until_ms: i64) {
        let id = format!("{at}-{}", self.rng.u32(..));
        let client = &mut self.clients[at];
        (client.id, client.epoch, client.is_full) = (id, JOINS, true);
        (client.owned, client.told, client.waits) = (Partitions::new(), None, None);
        (client.reported, client.leaves) = (Partitions::new(), None);
        client.classic = client.classic.as_ref().map(|_| Classic::default());
        (client.dead_until_ms, client.next_beat_ms) = (until_ms, until_ms);
        self.to_broker.retain(|(_, of, ..)| *of != at);
    }

    pub(super) fn act(&mut self, at: usize) {
        let now_ms = self.now_ms;
        let client = &mut self.clients[at];
        if now_ms < client.paused_until_ms || now_ms < client.dead_until_ms {
            return;
        }
        // Not while a heartbeat is under way that tells of less: the broker might take what has just come for given up. (The protocol
        // leaves that window to clients; who is in it has an answer on its way that tells it to give that up again.)
        let is_quiet = client.waits.is_none_or(|(_, until_ms)| until_ms <= now_ms);
        if let Some((told, _)) = client.told.take_if(|(_, until_ms)| *until_ms <= now_ms && is_quiet) {
            client.owned = told;
            client.next_beat_ms = now_ms;
        }
        if client.waits.is_some_and(|(_, until_ms)| until_ms <= now_ms) {
            // The connection is closed: what has not come to the broker by now never will.
            client.waits = None;
            client.is_full = true;
            if let Some(classic) = &mut client.classic {
                classic.next = Next::Join;
            }
            self.to_broker.retain(|(_, of, ..)| *of != at);
        }
        if let Some(leaves) = self.clients[at].leaves {
            self.say_that_it_leaves(at, leaves);
            return self.end(at, now_ms + 1_000);
        }
        let client = &self.clients[at];
        if client.waits.is_some() || now_ms < client.next_beat_ms {
            return;
        }
        match client.classic {
            None => self.send(at, self.clients[at].epoch),
            Some(_) => self.send_classic(at),
        }
    }

    fn send_classic(&mut self, at: usize) {
        let led = self.topics_led_by(at);
        let client = &mut self.clients[at];
        let claim = self::claim(client);
        let Some(classic) = &mut client.classic else { return };
        if classic.shared.as_ref().is_some_and(|shared| *shared != led) {
            // Leaders look after the topics that they have shared out.
            (classic.next, classic.shared) = (Next::Join, None);
        }
        // It joins with what it has once it has come to what it was told.
        let next = if classic.next == Next::Join && client.told.is_some() { Next::Beat } else { classic.next };
        let mut timeout_ms = REQUEST_TIMEOUT_MS;
        let ask = match next {
            Next::Beat => Ask::ClassicBeat(claim),
            Next::Sync => {
                let members = classic.members.take();
                let assignments = members.map(|members| self.shared_out(at, &members)).unwrap_or_default();
                Ask::ClassicSync(SyncRequest { claim, protocol_type: None, protocol: None, assignments })
            }
            Next::Join => {
                timeout_ms = JOIN_TIMEOUT_MS;
                classic.shared = None;
                let names: Vec<&str> = client.topics.iter().flatten().map(String::as_str).collect();
                let owned = names_of(&client.owned, &self.image);
                let metadata = subscription_of(&names, &owned);
                Ask::ClassicJoin(JoinRequest {
                    member_id: if classic.is_known { client.id.clone() } else { String::new() },
                    fresh_id: format!("{at}-{}", self.next),
                    protocols: vec![("range".to_owned(), metadata)],
                    session_timeout_ms: 20_000,
                    requires_known_id: false,
                    can_skip_assignment: false,
                    ..request("", &[])
                })
            }
        };
        self.clients[at].next_beat_ms = self.now_ms + BEAT_MS;
        self.post(at, ask, timeout_ms);
    }

    /// The topics of the generation that a member leads, or would lead.
    fn topics_led_by(&self, at: usize) -> Vec<(String, TopicId, usize)> {
        let shared = self.clients[at].classic.as_ref().and_then(|classic| classic.shared.as_ref());
        let names = shared.into_iter().flatten().map(|(name, ..)| name.as_str());
        self.as_they_are(names)
    }

    fn as_they_are<'n>(&self, names: impl Iterator<Item = &'n str>) -> Vec<(String, TopicId, usize)> {
        let none = (TopicId(crate::base::ids::Uuid::from_u128(0)), 0);
        let known = |name: &str| self.image.topic(name).map_or(none, |topic| (topic.id, topic.partitions.len()));
        names.map(|name| (name.to_owned(), known(name).0, known(name).1)).collect()
    }

    /// What a leader gives to whom, as cooperative assignors do it: nobody gets what another still has. Now and then somebody is to give
    /// something up, which another one gets in the next round.
    fn shared_out(&mut self, at: usize, members: &[JoinedMember]) -> Vec<(String, bytes::Bytes)> {
        let read = |member: &JoinedMember| subscription::read(&member.metadata).expect("a subscription");
        let all: Vec<subscription::Subscription> = members.iter().map(read).collect();
        let names: BTreeSet<&str> = all.iter().flat_map(|one| &one.topics).map(String::as_str).collect();
        let topics = self.as_they_are(names.into_iter());
        let mut given: Vec<BTreeMap<&str, Vec<i32>>> = vec![BTreeMap::new(); members.len()];
        let mut load = vec![0; members.len()];
        for (name, _, count) in &topics {
            for partition in 0..i32::try_from(*count).expect("few") {
                let has = |one: &subscription::Subscription| {
                    one.owned.iter().any(|(topic, numbers)| topic == name && numbers.contains(&partition))
                };
                let wants = |one: &usize| all[*one].topics.contains(name);
                let mut holders = (0..all.len()).filter(|one| has(&all[*one]));
                let goes_to = match (holders.next(), holders.next()) {
                    (None, _) => (0..all.len()).filter(wants).min_by_key(|one| load[*one]),
                    (Some(holder), None) => {
                        let stays = !self.is_chaos || self.rng.u8(..) > 20;
                        Some(holder).filter(|holder| stays && wants(holder))
                    }
                    // Each has it with some right: all give it up first.
                    (Some(_), Some(_)) => None,
                };
                if let Some(one) = goes_to {
                    given[one].entry(name).or_default().push(partition);
                    load[one] += 1;
                }
            }
        }
        let of_member = |(member, given): (&JoinedMember, BTreeMap<&str, Vec<i32>>)| {
            let named = given.into_iter().map(|(name, numbers)| (name.to_owned(), numbers)).collect();
            (member.member_id.clone(), subscription::write_assignment(1, &named))
        };
        let assignments = members.iter().zip(given).map(of_member).collect();
        if let Some(classic) = &mut self.clients[at].classic {
            classic.shared = Some(topics);
        }
        assignments
    }

    /// Puts a request on its way, or loses it.
    fn post(&mut self, at: usize, ask: Ask, timeout_ms: i64) {
        self.clients[at].waits = Some((self.next, self.now_ms + timeout_ms));
        let until_ms = self.now_ms + self.rng.i64(0..500);
        if self.rng.f64() >= self.loss {
            self.to_broker.push((until_ms, at, self.next, ask));
        }
        self.next += 1;
    }

    fn say_that_it_leaves(&mut self, at: usize, how: i32) {
        let client = &self.clients[at];
        match &client.classic {
            None => self.send(at, how),
            Some(classic) if classic.is_known => {
                let leaving = Leaving { member_id: client.id.clone(), instance_id: None };
                self.send_at_once(at, Ask::ClassicLeave(leaving));
            }
            Some(_) => {}
        }
    }

    fn send(&mut self, at: usize, epoch: i32) {
        let now_ms = self.now_ms;
        let client = &mut self.clients[at];
        let has_news = client.owned != client.reported || client.is_full;
        let request = Heartbeat {
            member_id: client.id.clone(),
            epoch,
            instance_id: client.instance_id.clone(),
            rebalance_timeout_ms: client.is_full.then_some(REBALANCE_MS),
            topics: client.topics.clone().filter(|_| client.is_full),
            regex: client.regex.clone().filter(|_| client.is_full),
            owned: has_news.then(|| client.owned.clone()),
            client_host: "/127.0.0.1".to_owned(),
            ..Heartbeat::default()
        };
        client.reported = client.owned.clone();
        client.is_full = false;
        client.next_beat_ms = now_ms + BEAT_MS;
        match epoch >= JOINS {
            true => self.post(at, Ask::Beat(request), REQUEST_TIMEOUT_MS),
            false => self.send_at_once(at, Ask::Beat(request)),
        }
    }

    /// A request that leaves goes out with the connection: it comes soon or not at all.
    fn send_at_once(&mut self, at: usize, ask: Ask) {
        if self.rng.f64() >= self.loss {
            self.to_broker.push((self.now_ms, at, self.next, ask));
            self.next += 1;
            self.serve();
        }
    }

    pub(super) fn deliver(&mut self) {
        let now_ms = self.now_ms;
        let (due, later) = std::mem::take(&mut self.to_client).into_iter().partition(|(at_ms, ..)| *at_ms <= now_ms);
        self.to_client = later;
        let due: Vec<(i64, usize, u64, Answer)> = due;
        for (_, at, number, answer) in due {
            let client = &mut self.clients[at];
            if client.paused_until_ms > now_ms {
                self.to_client.push((client.paused_until_ms, at, number, answer));
                continue;
            }
            if client.waits.is_none_or(|(awaited, _)| awaited != number) {
                continue;
            }
            client.waits = None;
            self.hear(at, answer);
        }
    }

    fn hear(&mut self, at: usize, answer: Answer) {
        let now_ms = self.now_ms;
        let client = &mut self.clients[at];
        match answer {
            Ok(Told::Fine) => {}
            Ok(Told::Joined(answer)) => {
                (client.epoch, client.next_beat_ms) = (answer.generation, now_ms);
                let leads = answer.leader.as_deref() == Some(&*answer.member_id);
                let members = leads.then_some(answer.members);
                client.classic = Some(Classic { next: Next::Sync, is_known: true, members, shared: None });
                client.id = answer.member_id;
            }
            Ok(Told::Synced(assignment, by_leader)) => {
                let Some(classic) = &mut client.classic else { return };
                // Where a leader shares out, others get what a member gives up when it has joined without that.
                let gives_up = by_leader && !is_part(&client.owned, &assignment);
                classic.next = if gives_up { Next::Join } else { Next::Beat };
                client.told = Some((assignment, now_ms + self.rng.i64(0..2_000)));
            }
            Err(ResponseError::RebalanceInProgress) => {
                client.next_beat_ms = now_ms + 100;
                if let Some(classic) = &mut client.classic {
                    classic.next = Next::Join;
                }
            }
            Ok(Told::Beaten(beaten)) => {
                client.epoch = beaten.epoch;
                if let Some(assignment) = beaten.assignment {
                    // To give up partitions takes its time, now and then too much.
                    let is_slow = self.is_chaos && self.rng.f64() < 0.05;
                    let takes_ms = if is_slow { self.rng.i64(0..40_000) } else { self.rng.i64(0..2_000) };
                    client.told = Some((assignment, now_ms + takes_ms));
                }
            }
            Err(ResponseError::FencedInstanceId) => self.end(at, now_ms + 1_000),
            Err(error) => {
                let is_hopeless = error == ResponseError::UnreleasedInstanceId;
                if let Some(classic) = &mut client.classic {
                    let is_known = classic.is_known && error != ResponseError::UnknownMemberId;
                    *classic = Classic { is_known, ..Classic::default() };
                }
                client.next_beat_ms = now_ms + if is_hopeless { 2_000 } else { 100 };
                (client.epoch, client.is_full) = (JOINS, true);
                (client.owned, client.told, client.reported) = (Partitions::new(), None, Partitions::new());
            }
        }
    }
}

fn claim(client: &Client) -> MemberClaim {
    MemberClaim { generation: client.epoch, member_id: client.id.clone(), instance_id: None }
}

fn is_part(one: &Partitions, of: &Partitions) -> bool {
    one.iter().all(|(topic, numbers)| of.get(topic).is_some_and(|all| numbers.is_subset(all)))
}

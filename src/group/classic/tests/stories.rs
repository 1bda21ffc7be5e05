//! What Apache Kafka's coordinator answers, story by story.

use super::super::*;
use super::simulation::limits;

struct Story {
    now_ms: i64,
    group: Group,
    next: u64,
    /// Answers that nobody has looked at, in order.
    seen: Vec<Effect>,
}

impl Story {
    fn new() -> Story {
        Story { now_ms: 0, group: Group::new(limits(), 0), next: 0, seen: Vec::new() }
    }

    fn feed(&mut self, event: Event) {
        let effects = self.group.step(self.now_ms, event);
        self.seen.extend(effects);
    }

    fn waiter(&mut self) -> Waiter {
        self.next += 1;
        Waiter(self.next)
    }

    /// Time passes; everything due in it happens when it is due.
    fn pass(&mut self, ms: i64) {
        let until_ms = self.now_ms + ms;
        while let Some(due_ms) = self.group.next_deadline_ms().filter(|due_ms| *due_ms <= until_ms) {
            self.now_ms = due_ms;
            self.feed(Event::Tick);
        }
        self.now_ms = until_ms;
    }

    fn request(member_id: &str, fresh_id: &str) -> JoinRequest {
        JoinRequest {
            member_id: member_id.to_owned(),
            fresh_id: fresh_id.to_owned(),
            instance_id: None,
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 60_000,
            protocol_type: CONSUMER.to_owned(),
            protocols: vec![("range".to_owned(), Bytes::new()), ("roundrobin".to_owned(), Bytes::new())],
            requires_known_id: false,
            can_skip_assignment: false,
        }
    }

    fn join(&mut self, request: JoinRequest) -> Waiter {
        let waiter = self.waiter();
        self.feed(Event::Join(waiter, request));
        waiter
    }

    fn sync(&mut self, member_id: &str, assignments: &[(&str, &'static str)]) -> Waiter {
        let waiter = self.waiter();
        let assignments = assignments.iter().map(|(id, text)| ((*id).to_owned(), Bytes::from_static(text.as_bytes())));
        let request = SyncRequest {
            claim: claim(self.group.generation(), member_id),
            protocol_type: Some(CONSUMER.to_owned()),
            protocol: Some("range".to_owned()),
            assignments: assignments.collect(),
        };
        self.feed(Event::Sync(waiter, request));
        waiter
    }

    fn beat(&mut self, generation: i32, member_id: &str) -> Option<ResponseError> {
        let waiter = self.waiter();
        self.feed(Event::Heartbeat(waiter, claim(generation, member_id)));
        let at = self.seen.iter().position(|effect| matches!(effect, Effect::Beaten(of, _) if *of == waiter));
        match self.seen.remove(at.expect("heartbeats are answered at once")) {
            Effect::Beaten(_, error) => error,
            _ => unreachable!("just found"),
        }
    }

    fn joined(&mut self, waiter: Waiter) -> Option<JoinAnswer> {
        let at = self.seen.iter().position(|effect| matches!(effect, Effect::Joined(of, _) if *of == waiter))?;
        match self.seen.remove(at) {
            Effect::Joined(_, answer) => Some(answer),
            _ => None,
        }
    }

    fn synced(&mut self, waiter: Waiter) -> Option<SyncAnswer> {
        let at = self.seen.iter().position(|effect| matches!(effect, Effect::Synced(of, _) if *of == waiter))?;
        match self.seen.remove(at) {
            Effect::Synced(_, answer) => Some(answer),
            _ => None,
        }
    }

    /// Lets the log take what is on its way.
    fn store(&mut self, error: Option<ResponseError>) -> GroupRecord {
        let at = self.seen.iter().position(|effect| matches!(effect, Effect::Store(..))).expect("something to store");
        match self.seen.remove(at) {
            Effect::Store(ticket, record) => {
                self.feed(Event::Stored(ticket, error));
                record
            }
            _ => unreachable!("just found"),
        }
    }

    /// A group of a and b, in which a leads.
    fn settled() -> Story {
        let mut story = Story::new();
        let a = story.join(Story::request("", "a"));
        let b = story.join(Story::request("", "b"));
        story.pass(6_000);
        assert_eq!(story.joined(a).expect("answered").generation, 1);
        story.joined(b).expect("answered");
        let (of_b, of_a) = (story.sync("b", &[]), story.sync("a", &[("a", "0"), ("b", "1")]));
        assert_eq!(story.synced(of_a), None, "nothing is given out before it is stored");
        story.store(None);
        assert_eq!(story.synced(of_a).expect("answered").assignment, "0");
        assert_eq!(story.synced(of_b).expect("answered").assignment, "1");
        assert!(story.seen.is_empty());
        story
    }
}

fn claim(generation: i32, member_id: &str) -> MemberClaim {
    MemberClaim { generation, member_id: member_id.to_owned(), instance_id: None }
}

#[test]
fn the_first_rebalance_waits_for_newcomers_and_the_first_of_them_leads() {
    let mut story = Story::new();
    let a = story.join(Story::request("", "a"));
    story.pass(2_900);
    let b = story.join(Story::request("", "b"));
    story.pass(2_900);
    assert_eq!(story.joined(a), None, "b came during the delay, which is added once more");
    story.pass(200);
    let answer = story.joined(a).expect("answered");
    assert_eq!((answer.generation, answer.leader.as_deref(), answer.members.len()), (1, Some("a"), 2));
    assert_eq!(answer.protocol.as_deref(), Some("range"), "both prefer it");
    let answer = story.joined(b).expect("answered");
    assert_eq!((answer.generation, answer.members.len()), (1, 0), "only the leader is told who is there");
}

#[test]
fn a_new_member_is_told_its_id_and_comes_back_with_it() {
    let mut story = Story::new();
    let first = story.join(JoinRequest { requires_known_id: true, ..Story::request("", "a") });
    let answer = story.joined(first).expect("at once");
    assert_eq!((answer.error, &*answer.member_id), (Some(ResponseError::MemberIdRequired), "a"));
    let second = story.join(JoinRequest { requires_known_id: true, ..Story::request("a", "unused") });
    story.pass(3_000);
    assert_eq!(story.joined(second).expect("answered").error, None);
    // An id that does not come back within a session is forgotten.
    let lost = story.join(JoinRequest { requires_known_id: true, ..Story::request("", "x") });
    story.joined(lost);
    story.pass(10_000);
    let late = story.join(Story::request("x", "unused"));
    assert_eq!(story.joined(late).expect("at once").error, Some(ResponseError::UnknownMemberId));
}

#[test]
fn a_member_that_is_not_heard_of_is_replaced_by_the_others() {
    let mut story = Story::settled();
    story.pass(5_000);
    assert_eq!(story.beat(1, "a"), None);
    story.pass(5_000);
    assert_eq!(story.beat(1, "a"), Some(ResponseError::RebalanceInProgress), "b's session is over");
    let again = story.join(Story::request("a", "unused"));
    let answer = story.joined(again).expect("everybody is there");
    assert_eq!((answer.generation, answer.members.len()), (2, 1));
    assert_eq!(story.beat(1, "b"), Some(ResponseError::UnknownMemberId));
    assert_eq!(story.group.may_commit(story.now_ms, &claim(1, "a")), Err(ResponseError::IllegalGeneration));
    assert_eq!(story.group.may_commit(story.now_ms, &claim(1, "b")), Err(ResponseError::UnknownMemberId));
    assert_eq!(story.group.may_commit(story.now_ms, &claim(2, "a")), Err(ResponseError::RebalanceInProgress));
    assert_eq!(story.group.may_commit(story.now_ms, &claim(-1, "")), Err(ResponseError::UnknownMemberId));
}

#[test]
fn an_assignment_that_cannot_be_stored_is_made_again() {
    let mut story = Story::settled();
    let c = story.join(Story::request("", "c"));
    let (a, b) = (story.join(Story::request("a", "")), story.join(Story::request("b", "")));
    for waiter in [a, b, c] {
        assert_eq!(story.joined(waiter).expect("everybody is there").generation, 2);
    }
    let (of_a, of_b) = (story.sync("a", &[("a", "0"), ("c", "2")]), story.sync("b", &[]));
    story.store(Some(ResponseError::NotLeaderOrFollower));
    assert_eq!(story.synced(of_a).expect("answered").error, Some(ResponseError::NotLeaderOrFollower));
    assert_eq!(story.synced(of_b).expect("answered").error, Some(ResponseError::NotLeaderOrFollower));
    assert_eq!(story.group.state(), State::PreparingRebalance);
}

#[test]
fn who_does_not_fetch_its_assignment_is_out() {
    let mut story = Story::settled();
    let a = story.join(Story::request("a", ""));
    let b = story.join(Story::request("b", ""));
    assert!(story.joined(a).is_some() && story.joined(b).is_some());
    let of_a = story.sync("a", &[("a", "0"), ("b", "1")]);
    story.store(None);
    story.synced(of_a).expect("stable without b");
    for _ in 0..7 {
        story.pass(9_000);
        let _ = (story.beat(2, "a"), story.beat(2, "b"));
    }
    assert!(!story.group.members().contains("b"), "it is alive, but has had a whole rebalance timeout");
    assert_eq!(story.group.state(), State::PreparingRebalance);
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_its_old_self_is_fenced() {
    let mut story = Story::new();
    let instance = |member: &str, fresh: &str| JoinRequest {
        instance_id: Some("i".to_owned()),
        can_skip_assignment: true,
        ..Story::request(member, fresh)
    };
    let old = story.join(instance("", "i-1"));
    story.pass(3_000);
    story.joined(old).expect("answered");
    let of_old = story.sync("i-1", &[("i-1", "0")]);
    story.store(None);
    story.synced(of_old).expect("answered");

    let new = story.join(instance("", "i-2"));
    assert_eq!(story.joined(new), None, "its new id is stored first");
    let record = story.store(None);
    assert_eq!(record.members[0].member_id, "i-2");
    let answer = story.joined(new).expect("answered");
    assert_eq!((answer.generation, answer.leader.as_deref(), answer.skip_assignment), (1, Some("i-2"), true));
    let of_new = story.sync("i-2", &[]);
    assert_eq!(story.synced(of_new).expect("at once").assignment, "0");
    let fenced = MemberClaim { instance_id: Some("i".to_owned()), ..claim(1, "i-1") };
    assert_eq!(story.group.may_commit(story.now_ms, &fenced), Err(ResponseError::FencedInstanceId));
    // Leaving by instance id, as an administrator does.
    let waiter = story.waiter();
    let leaving = Leaving { member_id: String::new(), instance_id: Some("i".to_owned()) };
    story.feed(Event::Leave(waiter, vec![leaving.clone(), leaving]));
    let left = Effect::Left(waiter, Ok(vec![None, Some(ResponseError::UnknownMemberId)]));
    assert!(story.seen.contains(&left), "{:?}", story.seen);
    assert_eq!(story.store(None).members, []);
    assert_eq!(story.group.state(), State::Empty);
}

#[test]
fn a_restored_group_goes_on_in_its_generation() {
    let mut story = Story::settled();
    let record = story.group.record(|member| member.assignment.clone());
    story.group = Group::restored(limits(), &record, story.now_ms);
    assert_eq!(story.beat(1, "a"), None);
    let again = story.sync("b", &[]);
    assert_eq!(story.synced(again).expect("at once").assignment, "1");
    story.pass(10_000);
    assert_eq!(story.beat(1, "b"), Some(ResponseError::UnknownMemberId), "a session counts from the restart");
}

/// Time began with the first member's join, which then waited as long as a rebalance may take.
#[test]
fn an_empty_group_that_was_restored_delays_its_first_generation_as_any_other() {
    let mut story = Story::settled();
    let record = GroupRecord { members: Vec::new(), ..story.group.record(|member| member.assignment.clone()) };
    story.group = Group::restored(limits(), &record, story.now_ms);
    let a = story.join(Story::request("", "a"));
    story.group.begin_time(story.now_ms);
    story.pass(6_000);
    assert!(story.joined(a).expect("answered").error.is_none());
}

#[test]
fn a_record_with_a_member_twice_is_restored_with_the_first() {
    let mut story = Story::settled();
    let mut record = story.group.record(|member| member.assignment.clone());
    let twice = MemberRecord { session_timeout_ms: 20_000, ..record.members[0].clone() };
    record.members.insert(1, twice);
    story.group = Group::restored(limits(), &record, story.now_ms);
    assert_eq!(story.group.members().len(), 2);
    story.pass(30_000);
    assert!(story.group.members().is_empty(), "all sessions end");
}

#[test]
fn what_is_not_allowed_is_refused() {
    let mut story = Story::settled();
    let refused = |story: &mut Story, request| {
        let waiter = story.join(request);
        story.joined(waiter).expect("at once").error
    };
    let other = JoinRequest { protocol_type: "connect".to_owned(), ..Story::request("", "c") };
    assert_eq!(refused(&mut story, other), Some(ResponseError::InconsistentGroupProtocol));
    let other = JoinRequest { protocols: vec![("sticky".to_owned(), Bytes::new())], ..Story::request("", "c") };
    assert_eq!(refused(&mut story, other), Some(ResponseError::InconsistentGroupProtocol));
    let short = JoinRequest { session_timeout_ms: 5_999, ..Story::request("", "c") };
    assert_eq!(refused(&mut story, short), Some(ResponseError::InvalidSessionTimeout));
    assert_eq!(refused(&mut story, Story::request("nobody", "")), Some(ResponseError::UnknownMemberId));
    story.group.limits.members_max = 2;
    assert_eq!(refused(&mut story, Story::request("", "c")), Some(ResponseError::GroupMaxSizeReached));
    assert_eq!(story.group.state(), State::Stable, "none of it disturbs the members");
}

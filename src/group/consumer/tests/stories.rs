//! The paths of the protocol, one story each.

use super::super::member::{JOINS, LEAVES, LEAVES_FOR_A_WHILE, MemberState};
use super::super::*;
use super::{drop_topic, limits, reloaded, set_topic, topics};

/// A group with its log, and a clock that stands still until it is moved.
pub struct Story {
    pub image: ClusterImage,
    pub limits: Limits,
    pub group: Group,
    pub log: Vec<Record>,
    pub now_ms: i64,
}

impl Story {
    pub fn new() -> Story {
        let mut image = ClusterImage::default();
        set_topic(&mut image, "t", 1, 4);
        Story { image, limits: limits(), group: Group::default(), log: Vec::new(), now_ms: 0 }
    }

    pub fn beat(&mut self, request: &Heartbeat) -> Result<Beaten, Refusal> {
        request.check(&self.limits)?;
        let env = Env::new(&self.image, &self.limits);
        let wanted = self.group.patterns_wanted(self.now_ms, &env, request);
        let matches = Matches::of(&wanted, &self.image, || true);
        let env = Env { matches: &matches, ..env };
        let decision = self.group.heartbeat(self.now_ms, &env, request)?;
        self.log.extend(decision.records.iter().cloned());
        let answer = self.group.accept(decision);
        let found = reloaded(&self.log, self.now_ms);
        assert_eq!(
            (&found.members, &found.targets),
            (&self.group.members, &self.group.targets),
            "the log says the same"
        );
        Ok(answer)
    }

    pub fn join(&mut self, id: &str) -> Beaten {
        self.beat(&joining(id)).expect("joins")
    }

    /// Says what it has, and gets what it is told.
    pub fn owns(&mut self, id: &str, epoch: i32, owned: &[i32]) -> Result<Beaten, Refusal> {
        self.beat(&Heartbeat { owned: Some(of_t(owned)), ..plain(id, epoch) })
    }

    pub fn tick(&mut self) -> Vec<String> {
        let (gone, _): (Vec<MemberId>, Vec<Timer>) = self.group.due(self.now_ms, usize::MAX).into_iter().unzip();
        let env = Env::new(&self.image, &self.limits);
        let decision = self.group.fence(&env, &gone);
        self.log.extend(decision.records.iter().cloned());
        self.group.accept(decision);
        gone.iter().map(ToString::to_string).collect()
    }
}

pub fn plain(id: &str, epoch: i32) -> Heartbeat {
    Heartbeat { member_id: id.to_owned(), epoch, client_host: "/127.0.0.1".to_owned(), ..Heartbeat::default() }
}

fn joining(id: &str) -> Heartbeat {
    Heartbeat {
        topics: Some(topics(&["t"])),
        owned: Some(Partitions::new()),
        rebalance_timeout_ms: Some(10_000),
        ..plain(id, JOINS)
    }
}

fn as_instance(request: Heartbeat, instance_id: &str) -> Heartbeat {
    Heartbeat { instance_id: Some(instance_id.to_owned()), ..request }
}

pub fn of_t(partitions: &[i32]) -> Partitions {
    let t = TopicId(crate::base::ids::Uuid::from_u128(1));
    if partitions.is_empty() {
        Partitions::new()
    } else {
        Partitions::from([(t, partitions.iter().copied().collect())])
    }
}

fn error(answer: Result<Beaten, Refusal>) -> ResponseError {
    answer.expect_err("it is refused").error
}

#[test]
fn partitions_move_to_a_second_member_when_the_first_has_given_them_up() {
    let mut story = Story::new();
    let first = story.join("a");
    assert_eq!((first.epoch, first.assignment), (1, Some(of_t(&[0, 1, 2, 3]))));
    assert_eq!(story.owns("a", 1, &[0, 1, 2, 3]).unwrap().assignment, None, "nothing new");
    assert_eq!(story.group.state(), State::Stable);

    let second = story.join("b");
    assert_eq!((second.epoch, second.assignment), (2, Some(Partitions::new())), "nothing is free yet");
    assert_eq!(story.group.state(), State::Reconciling);
    let told = story.owns("a", 1, &[0, 1, 2, 3]).unwrap();
    assert_eq!((told.epoch, told.assignment), (1, Some(of_t(&[0, 1]))), "in its old epoch, it is to give up two");
    assert_eq!(story.beat(&plain("b", 2)).unwrap().assignment, None, "which it still has");
    assert_eq!(story.owns("a", 1, &[0, 1, 2, 3]).unwrap().epoch, 1);

    let told = story.owns("a", 1, &[0, 1]).unwrap();
    assert_eq!((told.epoch, told.assignment), (2, None), "it has given them up, and comes to the new epoch");
    assert_eq!(story.beat(&plain("b", 2)).unwrap().assignment, Some(of_t(&[2, 3])));
    assert_eq!(story.group.state(), State::Stable);
}

#[test]
fn who_leaves_or_is_silent_is_out_and_the_others_share() {
    let mut story = Story::new();
    story.join("a");
    story.join("b");
    story.owns("a", 1, &[0, 1, 2, 3]).unwrap();
    story.owns("a", 1, &[0, 1]).unwrap();
    story.beat(&plain("b", 2)).unwrap();
    let left = story.beat(&plain("a", LEAVES)).unwrap();
    assert_eq!((left.epoch, left.assignment), (LEAVES, None));
    assert_eq!(story.group.state(), State::Assigning);
    let told = story.beat(&plain("b", 2)).unwrap();
    assert_eq!((told.epoch, told.assignment), (3, Some(of_t(&[0, 1, 2, 3]))));
    assert_eq!(error(story.beat(&plain("a", 2))), ResponseError::UnknownMemberId);

    story.now_ms += i64::from(story.limits.session_ms) - 1;
    assert_eq!(story.tick(), Vec::<String>::new());
    story.now_ms += 1;
    assert_eq!(story.tick(), ["b"]);
    assert_eq!(story.group.state(), State::Empty);
    assert_eq!(error(story.beat(&plain("b", 3))), ResponseError::UnknownMemberId);
    assert_eq!(story.join("b").epoch, 5);
}

#[test]
fn who_does_not_give_up_partitions_in_time_is_out() {
    let mut story = Story::new();
    story.join("a");
    story.join("b");
    story.owns("a", 1, &[0, 1, 2, 3]).unwrap();
    story.now_ms = 9_999;
    story.owns("a", 1, &[0, 1, 2, 3]).unwrap();
    story.beat(&plain("b", 2)).unwrap();
    assert_eq!(story.tick(), Vec::<String>::new());
    story.now_ms = 10_000;
    assert_eq!(story.tick(), ["a"]);
    assert_eq!(story.beat(&plain("b", 2)).unwrap().assignment, Some(of_t(&[0, 1, 2, 3])));
}

#[test]
fn epochs_fence() {
    let mut story = Story::new();
    story.join("a");
    assert_eq!(story.beat(&joining("a")).unwrap().assignment, Some(of_t(&[0, 1, 2, 3])), "the first answer was lost");
    assert_eq!(error(story.beat(&plain("a", 2))), ResponseError::FencedMemberEpoch, "an epoch that nobody gave");
    story.join("b");
    story.owns("a", 1, &[0, 1, 2, 3]).unwrap();
    story.owns("a", 1, &[0, 1]).unwrap();
    assert_eq!(error(story.beat(&plain("a", 1))), ResponseError::FencedMemberEpoch, "it does not say what it has");
    assert_eq!(error(story.owns("a", 1, &[0, 1, 2])), ResponseError::FencedMemberEpoch, "it has what it gave up");
    assert_eq!(story.owns("a", 1, &[0, 1]).unwrap().epoch, 2, "the answer was lost");
    assert_eq!(error(story.owns("a", 0, &[])), ResponseError::InvalidRequest, "what a member joins with is missing");

    let may = |id, epoch| story.group.may_commit(id, epoch, true);
    assert_eq!(may("a", 2), Ok(()));
    assert_eq!(may("a", 1), Err(ResponseError::StaleMemberEpoch));
    assert_eq!(may("x", 1), Err(ResponseError::UnknownMemberId));
    assert_eq!(may("", -1), Err(ResponseError::UnknownMemberId), "only of an empty group");
    assert_eq!(story.group.may_commit("a", 2, false), Err(ResponseError::UnsupportedVersion));
    assert_eq!(story.group.may_fetch(None, -1), Ok(()));
    assert_eq!(story.group.may_fetch(Some("a"), 1), Err(ResponseError::StaleMemberEpoch));
    assert_eq!(story.group.may_fetch(Some("x"), 1), Err(ResponseError::UnknownMemberId));
    assert_eq!(Group::default().may_commit("", -1, false), Ok(()));
}

#[test]
fn a_static_member_keeps_its_place_while_it_is_away() {
    let mut story = Story::new();
    story.beat(&as_instance(joining("a"), "i")).unwrap();
    let other = as_instance(joining("b"), "i");
    assert_eq!(error(story.beat(&other)), ResponseError::UnreleasedInstanceId);
    assert_eq!(error(story.beat(&as_instance(plain("b", 1), "i"))), ResponseError::FencedInstanceId);
    assert_eq!(error(story.beat(&as_instance(plain("b", 1), "j"))), ResponseError::UnknownMemberId);
    assert_eq!(error(story.beat(&as_instance(plain("b", LEAVES), "i"))), ResponseError::FencedInstanceId);

    let away = story.beat(&as_instance(plain("a", LEAVES_FOR_A_WHILE), "i")).unwrap();
    assert_eq!(away.epoch, LEAVES_FOR_A_WHILE);
    let back = story.beat(&other).unwrap();
    assert_eq!((back.epoch, back.assignment), (1, Some(of_t(&[0, 1, 2, 3]))), "no new epoch: nobody else notices");
    assert_eq!(error(story.beat(&plain("a", 1))), ResponseError::UnknownMemberId);

    story.beat(&as_instance(plain("b", LEAVES_FOR_A_WHILE), "i")).unwrap();
    assert_eq!(story.beat(&other).unwrap().epoch, 1, "the same process may come back, too");
    story.beat(&as_instance(plain("b", LEAVES_FOR_A_WHILE), "i")).unwrap();
    story.now_ms += i64::from(story.limits.session_ms);
    assert_eq!(story.tick(), ["b"], "not for ever");
}

#[test]
fn topics_that_change_change_the_assignment() {
    let mut story = Story::new();
    story.join("a");
    set_topic(&mut story.image, "t", 1, 5);
    let told = story.beat(&plain("a", 1)).unwrap();
    assert_eq!((told.epoch, told.assignment), (2, Some(of_t(&[0, 1, 2, 3, 4]))));
    set_topic(&mut story.image, "other", 2, 5);
    assert_eq!(story.beat(&plain("a", 2)).unwrap().epoch, 2, "that is none of its topics");
    drop_topic(&mut story.image, "t");
    assert_eq!(story.owns("a", 2, &[0, 1, 2, 3, 4]).unwrap().assignment, Some(Partitions::new()));
    let told = story.owns("a", 2, &[]).unwrap();
    assert_eq!((told.epoch, told.assignment), (3, None));
    set_topic(&mut story.image, "t", 1, 1);
    let wants = Heartbeat { topics: Some(topics(&["other"])), ..plain("a", 3) };
    assert_eq!(story.beat(&wants).unwrap().assignment.map(|assigned| assigned.len()), Some(1));
}

#[test]
fn patterns_are_resolved_and_looked_at_again_when_topics_come() {
    let mut story = Story::new();
    let wants = |id: &str, regex: &str| Heartbeat { topics: None, regex: Some(regex.to_owned()), ..joining(id) };
    let refused = story.beat(&wants("a", "t(")).unwrap_err();
    assert_eq!(refused.error, ResponseError::InvalidRegularExpression);
    assert!(story.log.is_empty());
    assert_eq!(story.beat(&wants("a", "t.?")).unwrap().assignment, Some(of_t(&[0, 1, 2, 3])));
    set_topic(&mut story.image, "tt", 2, 1);
    set_topic(&mut story.image, "ttt", 3, 1);
    assert_eq!(story.beat(&plain("a", 1)).unwrap().assignment, None, "it was looked at just now");
    story.now_ms += 10_000;
    let told = story.beat(&plain("a", 1)).unwrap();
    assert_eq!(told.assignment.map(|assigned| assigned.len()), Some(2), "the whole name matches, or nothing");
    assert!(story.group.topics().any(|name| name == "tt"));
    let last = Heartbeat { regex: Some(String::new()), topics: Some(topics(&["t"])), ..plain("a", 2) };
    story.beat(&last).unwrap();
    assert!(matches!(story.log.iter().rfind(|r| matches!(r, Record::Regex(..))), Some(Record::Regex(_, None))));
}

#[test]
fn members_may_wish_an_assignor_and_the_most_wished_for_is_taken() {
    let mut story = Story::new();
    let wish = |id: &str, name: &str| Heartbeat { assignor: Some(name.to_owned()), ..joining(id) };
    let refused = story.beat(&wish("a", "sticky")).unwrap_err();
    assert_eq!(refused.error, ResponseError::UnsupportedAssignor);
    assert_eq!(refused.message, "ServerAssignor sticky is not supported. Supported assignors: uniform, range.");
    story.beat(&wish("a", "range")).unwrap();
    let env = Env::new(&story.image, &story.limits);
    assert_eq!(story.group.assignor(&env), Assignor::Range);
    story.beat(&wish("b", "uniform")).unwrap();
    let env = Env::new(&story.image, &story.limits);
    assert_eq!(story.group.assignor(&env), Assignor::Uniform, "of equals, what the broker offers first");
}

#[test]
fn a_member_that_changes_its_instance_leaves_the_old_one_to_nobody() {
    let mut story = Story::new();
    story.beat(&as_instance(joining("a"), "i")).unwrap();
    story.beat(&as_instance(joining("a"), "j")).unwrap();
    assert_eq!(error(story.beat(&as_instance(plain("a", 1), "i"))), ResponseError::UnknownMemberId);
    story.beat(&as_instance(plain("a", LEAVES), "j")).unwrap();
    assert_eq!(error(story.beat(&as_instance(plain("a", 1), "i"))), ResponseError::UnknownMemberId);
    assert_eq!(story.beat(&as_instance(joining("b"), "i")).unwrap().assignment, Some(of_t(&[0, 1, 2, 3])));
}

#[test]
fn a_full_group_takes_nobody_else() {
    let mut story = Story::new();
    story.limits.members_max = 1;
    story.join("a");
    assert_eq!(error(story.beat(&joining("b"))), ResponseError::GroupMaxSizeReached);
    assert_eq!(story.beat(&plain("a", 1)).unwrap().epoch, 1);
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut story = Story::new();
    for (request, message) in [
        (
            Heartbeat { rebalance_timeout_ms: None, ..joining("a") },
            "RebalanceTimeoutMs must be provided in first request.",
        ),
        (Heartbeat { owned: None, ..joining("a") }, "TopicPartitions must be empty when (re-)joining."),
        (
            Heartbeat { topics: None, ..joining("a") },
            "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
        ),
        (plain("", 1), "MemberId can't be empty."),
        (plain("a", -3), "MemberEpoch is invalid."),
        (plain("a", LEAVES_FOR_A_WHILE), "InstanceId can't be null."),
        (as_instance(joining("a"), ""), "InstanceId can't be empty."),
        (Heartbeat { rack_id: Some(" ".to_owned()), ..joining("a") }, "RackId can't be empty."),
    ] {
        let refused = story.beat(&request).unwrap_err();
        assert_eq!((refused.error, &*refused.message), (ResponseError::InvalidRequest, message));
    }
    assert_eq!(error(story.beat(&plain("a", 1))), ResponseError::UnknownMemberId);
    assert!(story.log.is_empty());
}

#[test]
fn a_group_that_is_forgotten_leaves_nothing_behind() {
    let mut story = Story::new();
    story.beat(&Heartbeat { regex: Some("t.*".to_owned()), ..joining("a") }).unwrap();
    let mut stored = Stored::default();
    story.log.extend(story.group.gone());
    story.log.iter().cloned().for_each(|record| stored.take(record));
    assert!(!stored.exists() && stored.profiles.is_empty() && stored.targets.is_empty() && stored.currents.is_empty());
    assert!(stored.regexes.is_empty() && stored.assignment_epoch.is_none() && stored.topics.is_empty());
}

#[test]
fn a_restored_member_still_has_to_give_up_what_it_was_told_to() {
    let mut story = Story::new();
    story.join("a");
    story.join("b");
    story.owns("a", 1, &[0, 1, 2, 3]).unwrap();
    story.group = reloaded(&story.log, 100_000);
    story.now_ms = 100_000;
    assert_eq!(story.group.member("a").unwrap().current.state, MemberState::Unrevoked);
    assert_eq!(story.beat(&plain("b", 2)).unwrap().assignment, None);
    story.now_ms = 110_000;
    assert_eq!(story.tick(), ["a"], "within its time from then on");
}

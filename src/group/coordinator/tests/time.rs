//! The time of day is corrected while groups are at work.

use super::*;
use crate::base::clock;
use crate::group::classic::{JoinRequest, Leaving, SyncRequest};
use crate::group::consumer::{Beaten, Heartbeat};

const HOUR_MS: i64 = 3_600_000;

/// A time of day that jumps as the test says.
#[derive(Clone, Default)]
struct Wall {
    ahead_ms: Rc<Cell<i64>>,
}

impl Wall {
    fn clock(&self) -> Clock {
        let wall = self.clone();
        Clock::by(move || wall.now_ms())
    }

    fn now_ms(&self) -> i64 {
        clock::now_ms() + self.ahead_ms.get()
    }

    fn jump(&self, by_ms: i64) {
        self.ahead_ms.set(self.ahead_ms.get() + by_ms);
    }
}

pub(super) fn join_request(session_timeout_ms: i32) -> JoinRequest {
    JoinRequest {
        member_id: String::new(),
        fresh_id: "m".to_owned(),
        instance_id: None,
        client_id: "c".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms,
        rebalance_timeout_ms: 1000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), bytes::Bytes::new())],
        requires_known_id: false,
        can_skip_assignment: false,
    }
}

async fn join(slice: &Rc<Slice>, group: &str, session_timeout_ms: i32) {
    let request = join_request(session_timeout_ms);
    let joined = slice.ask(group, true, |waiter| Event::Join(waiter, request)).expect("made").await;
    assert!(matches!(joined, Ok(Effect::Joined(_, answer)) if answer.error.is_none()));
}

pub(super) fn joining(group: &str) -> Heartbeat {
    Heartbeat {
        group_id: group.to_owned(),
        member_id: "m".to_owned(),
        rebalance_timeout_ms: Some(1000),
        topics: Some(BTreeSet::from(["t".to_owned()])),
        owned: Some(Default::default()),
        ..Heartbeat::default()
    }
}

async fn heartbeat(slice: &Rc<Slice>, group: &str, epoch: i32) -> Result<Beaten, consumer::Refusal> {
    let again = Heartbeat { epoch, rebalance_timeout_ms: None, topics: None, owned: None, ..joining(group) };
    let request = if epoch == 0 { joining(group) } else { again };
    Ok(slice.heartbeat(group, &request, &NO_MATCHES)?.wait().await.expect("stored"))
}

fn state(slice: &Rc<Slice>, group: &str) -> Option<&'static str> {
    slice.view(group, |view| view.kind.state_name())
}

/// Members who were heard of a moment ago stay, and who is silent goes in his time, whichever way the time of day jumps.
#[test]
fn a_jump_of_the_clock_ends_no_session_and_holds_none() {
    for jump_ms in [HOUR_MS, -HOUR_MS] {
        tokio_uring::start(async {
            let (world, wall) = (World::new(1 << 20), Wall::default());
            let (coordinator, slice) = world.coordinator_by(wall.clock()).await;
            let coordinator = Rc::new(coordinator);
            let clock = tokio::task::spawn_local({
                let coordinator = Rc::clone(&coordinator);
                async move { coordinator.run_clock().await }
            });
            join(&slice, "loud", 100_000).await;
            join(&slice, "silent", 500).await;
            let epoch = heartbeat(&slice, "new", 0).await.expect("joined").epoch;
            wall.jump(jump_ms);
            let silence = async {
                while state(&slice, "silent") != Some("Empty") {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), silence).await.expect("its session ends");
            assert_eq!(state(&slice, "loud"), Some("CompletingRebalance"), "after a jump of {jump_ms} ms");
            assert!(heartbeat(&slice, "new", epoch).await.is_ok(), "after a jump of {jump_ms} ms");
            clock.abort();
        });
    }
}

/// What is stored is the time of day: the next coordinator counts from when the last member went.
#[test]
fn when_the_last_member_went_is_stored_by_the_wall_clock() {
    tokio_uring::start(async {
        let (world, wall) = (World::new(1 << 20), Wall::default());
        let (coordinator, slice) = world.coordinator_by(wall.clock()).await;
        let clock = tokio::task::spawn_local(async move { coordinator.run_clock().await });
        join(&slice, GROUP, 100_000).await;
        wall.jump(HOUR_MS);
        let before_ms = wall.now_ms();
        let leaving = vec![Leaving { member_id: "m".to_owned(), instance_id: None }];
        let left = slice.ask(GROUP, false, |waiter| Event::Leave(waiter, leaving)).expect("there").await;
        assert!(matches!(left, Ok(Effect::Left(_, Ok(_)))));
        // Behind the record that says that nobody is left.
        commit(&slice, "t", 7).await;
        let after_ms = wall.now_ms();
        // Both clocks count whole milliseconds, so that they tell one another's time a millisecond wrong.
        clock.abort();
        let (coordinator, slice) = world.coordinator_by(wall.clock()).await;
        coordinator.expire(before_ms + 7 * DAY_MS - 100).await.expect("ended");
        assert_eq!(committed(&slice, "t"), Some(7), "a moment too early");
        coordinator.expire(after_ms + 7 * DAY_MS + 100).await.expect("ended");
        assert_eq!(slice.ids(), [""; 0]);
    });
}

/// Fencing them one by one walked through all members and topics for each. What does not fit into one batch takes several.
#[test]
fn many_members_that_fall_silent_are_fenced_together() {
    tokio_uring::start(async {
        let world = World::new(10_000);
        let mut settings = settings();
        (settings.consumer.members_max, settings.consumer.session_ms) = (300, 20_000);
        let (coordinator, slice) = world.coordinator().await;
        coordinator.set_settings(settings.clone());
        for number in 0..300 {
            let member_id = format!("m-{number}");
            let request = Heartbeat { member_id, topics: Some(BTreeSet::from(["none".to_owned()])), ..joining(GROUP) };
            slice.heartbeat(GROUP, &request, &NO_MATCHES).expect("joined").wait().await.expect("stored");
        }
        let epoch = |slice: &Rc<Slice>| slice.view(GROUP, |view| view.kind.consumer().map(|group| group.epoch()));
        assert_eq!(epoch(&slice), Some(Some(300)), "one for each who came");
        settings.consumer.session_ms = 1;
        // Who loads the group gives everybody a whole session.
        let coordinator = Coordinator::new(settings);
        coordinator.set_image(&world.image);
        coordinator.leads(&[Rc::clone(&world.partition)]);
        let slice = Rc::clone(&coordinator.slices()[0]);
        let clock = tokio::task::spawn_local(async move { coordinator.run_clock().await });
        let silence = async {
            while state(&slice, GROUP) != Some("Empty") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), silence).await.expect("all are fenced");
        let steps = epoch(&slice).flatten().expect("there") - 300;
        assert!((2..100).contains(&steps), "{steps} steps: more than one batch, and far fewer than members");
        clock.abort();
    });
}

/// Nobody could be heard of while the partition was loaded, which took longer than a session.
#[test]
fn sessions_begin_when_the_partition_is_loaded() {
    tokio_uring::start(async {
        let world = World::new(1 << 20);
        let (coordinator, slice) = world.coordinator().await;
        let clock = tokio::task::spawn_local(async move { coordinator.run_clock().await });
        let epoch = heartbeat(&slice, "a", 0).await.expect("joined").epoch;
        join(&slice, "b", 500).await;
        slice.ask("b", false, |waiter| Event::Sync(waiter, sync_request(1))).expect("there").await.expect("synced");
        clock.abort();
        // So many that requests have their turn while they are taken in.
        let many: Vec<_> = (0..2000).map(|partition| (of("t", partition), 1)).collect();
        begin_commit_of(&slice, "z", &many).await.expect("stored");
        let mut settings = settings();
        settings.consumer.session_ms = 500;
        let coordinator = Rc::new(Coordinator::new(settings));
        coordinator.set_image(&world.image);
        coordinator.leads(&[Rc::clone(&world.partition)]);
        let slice = Rc::clone(&coordinator.slices()[0]);
        let clock = tokio::task::spawn_local(async move { coordinator.run_clock().await });
        while slice.check_loaded().is_err() {
            std::thread::sleep(Duration::from_millis(600));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The clock has its turn.
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(heartbeat(&slice, "a", epoch).await.is_ok(), "it was put out before it could be heard of");
        assert_eq!(state(&slice, "b"), Some("Stable"), "its member has a session as well");
        clock.abort();
    });
}

fn sync_request(generation: i32) -> SyncRequest {
    let claim = MemberClaim { generation, member_id: "m".to_owned(), instance_id: None };
    SyncRequest { claim, protocol_type: None, protocol: None, assignments: vec![("m".to_owned(), Default::default())] }
}

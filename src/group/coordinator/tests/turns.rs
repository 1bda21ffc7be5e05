//! Many groups are looked through, and requests have their turn meanwhile.

use super::time::joining;
use super::*;
use crate::base::limits::{GROUPS_LOOKED_AT_MAX, PATTERNS_WAITING_MAX};
use crate::group::consumer::Heartbeat;
use crate::maintenance::{self, Lane};

const GROUPS: usize = 200;
/// Of each group: so many that all are looked at in several turns.
const PARTITIONS: usize = 4 * GROUPS_LOOKED_AT_MAX / GROUPS;

fn name(number: usize) -> String {
    format!("g-{number:03}")
}

/// Groups of which each has committed offsets of "t", and one of "u".
async fn crowd() -> (World, Coordinator, Rc<Slice>) {
    let world = World::new(1 << 20);
    let (coordinator, slice) = world.coordinator().await;
    for number in 0..GROUPS {
        let of_t = (0..PARTITIONS as i32).map(|partition| (of("t", partition), 7));
        let offsets: Vec<_> = of_t.chain([(of("u", 0), 5)]).collect();
        begin_commit_of(&slice, &name(number), &offsets).await.expect("stored");
    }
    (world, coordinator, slice)
}

/// Counts how often somebody else can do something.
fn others() -> Rc<Cell<usize>> {
    let turns = Rc::new(Cell::new(0));
    let count = Rc::clone(&turns);
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            count.set(count.get() + 1);
        }
    });
    turns
}

fn known(slice: &Rc<Slice>, number: usize) -> Option<(usize, Option<i64>)> {
    let of_u = |offsets: &crate::group::offsets::Offsets| offsets.get("u", 0).map(|committed| committed.offset);
    slice.view(&name(number), |view| (view.offsets.len(), of_u(view.offsets)))
}

#[test]
fn requests_have_their_turn_while_offsets_expire() {
    tokio_uring::start(async {
        let (_world, coordinator, slice) = crowd().await;
        let turns = others();
        coordinator.expire(i64::MAX).await.expect("ended");
        assert!(turns.get() >= 3, "{} turns", turns.get());
        assert_eq!(slice.ids(), [""; 0]);
    });
}

#[test]
fn requests_have_their_turn_while_groups_forget_a_topic() {
    tokio_uring::start(async {
        let (world, coordinator, slice) = crowd().await;
        // Another of its name is there at once.
        let mut after = ClusterImage::clone(&world.image);
        let new = Arc::clone(image_of(&["t"]).topic("t").expect("made"));
        after.topics_by_id.remove(&after.topics["t"].id);
        after.topics_by_id.insert(new.id, Arc::clone(&new));
        after.topics.insert(Arc::clone(&new.name), new);
        let turns = others();
        coordinator.set_image(&Arc::new(after));
        assert!(slice.gone.borrow().is_busy(), "groups are told one by one");
        let last = GROUPS - 1;
        assert_eq!(known(&slice, last), Some((1, Some(5))), "who asks is not told of the old topic");
        begin_commit_of(&slice, &name(last - 1), &[(of("t", 0), 3)]).await.expect("stored");
        begin_commit_of(&slice, "new", &[(of("t", 0), 3)]).await.expect("stored");
        while slice.gone.borrow().is_busy() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(turns.get() >= 3, "{} turns", turns.get());
        // Behind the tombstones.
        begin_commit_of(&slice, "new", &[(of("t", 0), 4)]).await.expect("stored");
        for slice in [slice, world.coordinator().await.1] {
            let kept = |group: &str| slice.view(group, |view| view.offsets.len());
            assert_eq!((0..last - 1).find(|number| known(&slice, *number) != Some((1, Some(5)))), None);
            assert_eq!((kept(&name(last - 1)), kept(&name(last)), kept("new")), (Some(2), Some(1), Some(1)));
        }
    });
}

/// Takes a while for each name of the image below.
const SLOW: &str = "(?:[ab0-9]?){200}b[ab]{20}.*";

fn slow_image() -> Arc<ClusterImage> {
    let names: Vec<String> = (0..300).map(|number| format!("{number:03}{}", "ab".repeat(48))).collect();
    image_of(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Whatever a member subscribes to: the shard goes on. Whoever comes next with the same pattern need not wait for it.
#[test]
fn requests_have_their_turn_while_a_pattern_is_held_against_topics() {
    let (maintenance, thread) = maintenance::start(maintenance::Settings { plain: true }).expect("started");
    tokio_uring::start(async {
        let mut world = World::new(1 << 20);
        world.image = slow_image();
        let (_coordinator, slice) = world.coordinator().await;
        let subscribing = |member_id: &str, regex: &str| {
            let (member_id, regex) = (member_id.to_owned(), Some(regex.to_owned()));
            Heartbeat { member_id, regex, topics: None, ..joining(GROUP) }
        };
        let (first, second) = (subscribing("a", SLOW), subscribing("b", SLOW));
        assert!(slice.wants_patterns(GROUP, &first) && slice.wants_patterns(GROUP, &second));
        // The maintenance thread has other things to do: only somebody else could look at the pattern.
        let (release, busy): (Vec<_>, Vec<_>) = (0..8).map(|_| tokio::sync::oneshot::channel::<()>()).unzip();
        for job in busy {
            let maintenance = maintenance.clone();
            tokio::task::spawn_local(async move { maintenance.run(Lane::Ask, async move |_| drop(job.await)).await });
        }
        tokio::task::yield_now().await;
        let turns = others();
        let [first, second] = [first, second].map(|request| slice.begin_with_patterns(GROUP, request, &maintenance));
        while turns.get() < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(release);
        let told = first.await.expect("told").expect("joined").wait().await.expect("stored");
        assert!(second.await.expect("told").is_ok());
        assert_eq!(told.assignment.map(|topics| topics.len()), Some(300));
        assert!(!slice.wants_patterns(GROUP, &subscribing("c", SLOW)), "it is known");
        let refused = slice.begin_with_patterns(GROUP, subscribing("d", "("), &maintenance).await.expect("told");
        assert_eq!(refused.err().map(|refusal| refusal.error), Some(ResponseError::InvalidRegularExpression));
    });
    drop((maintenance, thread));
}

/// What a member sends while its heartbeat waits comes behind it; and who is known need not wait for the patterns of others.
#[test]
fn a_goodbye_does_not_overtake_the_heartbeat_that_waits() {
    let (maintenance, thread) = maintenance::start(maintenance::Settings { plain: true }).expect("started");
    tokio_uring::start(async {
        let mut world = World::new(1 << 20);
        world.image = slow_image();
        let (_coordinator, slice) = world.coordinator().await;
        let beat = |member_id: &str, epoch: i32, regex: &str| {
            let (member_id, regex) = (member_id.to_owned(), Some(regex.to_owned()).filter(|regex| !regex.is_empty()));
            Heartbeat { member_id, epoch, regex, topics: None, ..joining(GROUP) }
        };
        let begin = |request| slice.begin_with_patterns(GROUP, request, &maintenance);
        let known = begin(beat("known", 0, "a.*")).await.expect("told").expect("joined").wait().await.expect("stored");

        let _slow = begin(beat("slow", 0, SLOW));
        let join = begin(beat("other", 0, "b.*"));
        tokio::task::yield_now().await;
        assert!(slice.wants_patterns(GROUP, &beat("other", -1, "")), "behind its own");
        let leave = begin(beat("other", -1, ""));
        assert!(slice.wants_patterns(GROUP, &beat("known", known.epoch, "c.*")), "a pattern of which nothing is known");
        assert!(!slice.wants_patterns(GROUP, &beat("known", known.epoch, "a.*")), "others have the turn");
        // However many one member sends, only so many are kept.
        let crowd: Vec<_> = (0..PATTERNS_WAITING_MAX - 3).map(|_| begin(beat("crowd", -1, ""))).collect();
        let refused = begin(beat("crowd", -1, "")).await.expect("told").err().map(|refusal| refusal.error);
        assert_eq!(refused, Some(ResponseError::CoordinatorLoadInProgress));
        drop(crowd);
        // The client has gone: its heartbeat counts all the same.
        drop(join);
        let left = leave.await.expect("told").expect("it was a member").wait().await.expect("stored");
        assert_eq!(left.epoch, -1);
        assert!(!slice.wants_patterns(GROUP, &beat("other", -1, "")), "nothing waits");
    });
    drop((maintenance, thread));
}

//! Produce and fetch stay on their shard: nothing that another thread sends arrives meanwhile.

use crate::broker::Start;
use crate::load::Load;
use crate::wire::create_topic;

/// A broker without timed work in the way.
pub fn quiet(start: Start) -> Start {
    start.set("log.flush.offset.checkpoint.interval.ms", 3_600_000).set("log.retention.check.interval.ms", 3_600_000)
}

#[test]
fn produce_and_fetch_send_nothing_between_shards() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let broker = quiet(Start::new(dir.path())).start();
    let mut load = Load::prepare(&broker, "steady");
    let before = broker.counter("cross_shard_messages");
    load.run(300);
    assert_eq!(broker.counter("cross_shard_messages"), before, "steady produce and fetch stay on their shards");

    // That it would have been seen: a new topic is a message of the control plane to every shard.
    create_topic(&broker, "injected", 1, &[]);
    let after = broker.counter("cross_shard_messages");
    assert!(after.iter().zip(&before).all(|(after, before)| after > before), "{before:?} then {after:?}");
}

//! Metadata: all, some, unknown and misnamed topics, ids, auto-creation.

use super::{PLAIN, SMALL, each_version, learn_topics, poll};
use crate::pair::Pair;
use crate::requests::{metadata, topic_name};
use anyhow::Result;
use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use uuid::Uuid;

const BAD_NAMES: &[&str] = &["", ".", "..", "a b", "a/b", "ä", "tab\t"];

const LEADER_NOT_AVAILABLE: i16 = 5;

pub fn script(pair: &mut Pair) -> Result<()> {
    each_version::<MetadataRequest>(pair, |pair, version| {
        pair.case("metadata-all");
        pair.same(version, |_| {
            let request = metadata(version, &[]);
            if version >= 1 { request.with_topics(None) } else { request }
        })?;
        pair.case("metadata-none");
        if version >= 1 {
            pair.same(version, |_| metadata(version, &[]))?;
        }
        pair.case("metadata-some");
        pair.same(version, |_| metadata(version, &[SMALL, PLAIN]))?;
        pair.same(version, |_| metadata(version, &[SMALL, SMALL]))?;
        if version >= 4 {
            pair.case("metadata-unknown");
            pair.same(version, |_| metadata(version, &["nobody", PLAIN]))?;
            pair.case("metadata-bad-name");
            let long = "x".repeat(250);
            for name in BAD_NAMES.iter().copied().chain([long.as_str()]) {
                pair.same(version, |_| metadata(version, &[name]))?;
            }
        }
        if version >= 10 {
            by_id(pair, version)?;
        }
        if version >= 8 {
            pair.case("metadata-authorized-operations");
            pair.same(version, |_| {
                let request = metadata(version, &[SMALL, "nobody"]).with_include_topic_authorized_operations(true);
                if version <= 10 { request.with_include_cluster_authorized_operations(true) } else { request }
            })?;
        }
        auto_create(pair, version)
    })
}

fn by_id(pair: &mut Pair, version: i16) -> Result<()> {
    pair.case("metadata-by-id");
    let by_id = |id: Uuid, name: Option<&str>| {
        let topic = MetadataRequestTopic::default().with_topic_id(id).with_name(name.map(topic_name));
        metadata(version, &[]).with_topics(Some(vec![topic]))
    };
    pair.same(version, |side| by_id(side.topic_id(SMALL), None))?;
    pair.case("metadata-by-unknown-id");
    pair.same(version, |_| by_id(Uuid::from_u128(0x1234_5678), None))?;
    pair.case("metadata-by-id-and-name");
    pair.same(version, |side| by_id(side.topic_id(SMALL), Some(SMALL)))?;
    pair.case("metadata-by-nothing");
    pair.same(version, |_| by_id(Uuid::nil(), None))?;
    Ok(())
}

/// Naming an unknown topic creates it: always up to version 3, by the request's flag since.
fn auto_create(pair: &mut Pair, version: i16) -> Result<()> {
    pair.case("metadata-auto-create");
    let name = pair.fresh_topic("auto");
    let asking = |names: &[&str]| {
        let request = metadata(version, names);
        if version >= 4 { request.with_allow_auto_topic_creation(true) } else { request }
    };
    pair.same(version, |_| asking(&[&name]))?;
    poll("the automatic topic", || {
        let answers = pair.exchange(version, |_| asking(&[&name]))?;
        Ok(answers.all(|answer| answer.topics.iter().all(|topic| topic.error_code == 0)))
    })?;
    learn_topics(pair, std::slice::from_ref(&name))?;
    pair.same(version, |_| asking(&[&name]))?;
    pair.case("metadata-auto-create-bad-name");
    for bad in BAD_NAMES {
        pair.same(version, |_| asking(&[bad]))?;
    }
    pair.case("metadata-auto-create-colliding");
    // Names that differ in nothing but `.` and `_` collide.
    for separator in [".", "_"] {
        let colliding = name.replace('-', separator);
        pair.same(version, |_| asking(&[&colliding]))?;
        poll("the colliding topic", || {
            let answers = pair.exchange(version, |_| asking(&[&colliding]))?;
            Ok(answers.all(|answer| answer.topics.iter().all(|topic| topic.error_code != LEADER_NOT_AVAILABLE)))
        })?;
        pair.same(version, |_| asking(&[&colliding]))?;
    }
    Ok(())
}

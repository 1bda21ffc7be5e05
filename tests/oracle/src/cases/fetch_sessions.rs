//! Incremental fetch sessions (KIP-227), and what their errors are.

use super::fetch::{add, filled};
use super::{PLAIN, SMALL, make_topics};
use crate::pair::{Pair, Side};
use crate::requests::{FetchFrom, delete, fetch, from, topic, topic_name};
use anyhow::Result;
use kafka_protocol::messages::fetch_request::ForgottenTopic;
use kafka_protocol::messages::{DeleteTopicsRequest, FetchRequest};
use uuid::Uuid;

pub fn script(pair: &mut Pair) -> Result<()> {
    for version in pair.versions::<FetchRequest>().filter(|&version| version >= 7) {
        let (one, two) = (filled(pair)?, filled(pair)?);
        let empty = pair.fresh_partition(PLAIN);
        life(pair, version, [one, two, empty])?;
        errors(pair, version, one)?;
        limits(pair, version, [one, two])?;
        unknown(pair, version, one)?;
        if version >= 12 {
            deleted(pair, version)?;
        }
    }
    Ok(())
}

fn in_session(side: &Side, version: i16, id: i32, epoch: i32, places: &[FetchFrom]) -> FetchRequest {
    fetch(side, version, places).with_session_id(id).with_session_epoch(epoch)
}

/// Opens a session with full places; its id on each side.
fn open(pair: &mut Pair, version: i16, places: &[FetchFrom]) -> Result<[i32; 2]> {
    let answers = pair.same(version, |side| in_session(side, version, 0, 0, places))?;
    Ok(answers.each(|answer| answer.session_id))
}

fn life(pair: &mut Pair, version: i16, [one, two, empty]: [i32; 3]) -> Result<()> {
    pair.case("session-open");
    let ids = open(pair, version, &[from(PLAIN, one, 0), from(PLAIN, two, 8), from(PLAIN, empty, 0)])?;
    let mut epoch = 0;
    let mut next = |pair: &mut Pair, places: &[FetchFrom], forget: &[i32]| -> Result<()> {
        epoch += 1;
        let answers = pair.same(version, |side| {
            let request = in_session(side, version, ids[side.index], epoch, places);
            if forget.is_empty() {
                return request;
            }
            let forgotten = ForgottenTopic::default().with_partitions(forget.to_vec());
            request.with_forgotten_topics_data(vec![if version >= 13 {
                forgotten.with_topic_id(side.topic_id(PLAIN))
            } else {
                forgotten.with_topic(topic_name(PLAIN))
            }])
        });
        answers.map(drop)
    };
    pair.case("session-goes-on-unchanged");
    next(pair, &[], &[])?;
    pair.case("session-moves-on");
    next(pair, &[from(PLAIN, one, 8)], &[])?;
    next(pair, &[], &[])?;
    pair.case("session-new-data");
    add(pair, PLAIN, two, 2)?;
    next(pair, &[], &[])?;
    next(pair, &[from(PLAIN, two, 10)], &[])?;
    pair.case("session-adds-partition");
    next(pair, &[from(SMALL, 19, 0)], &[])?;
    pair.case("session-error-and-back");
    next(pair, &[from(PLAIN, one, 99)], &[])?;
    next(pair, &[], &[])?;
    next(pair, &[from(PLAIN, one, 8)], &[])?;
    pair.case("session-forgets");
    next(pair, &[], &[two])?;
    add(pair, PLAIN, two, 1)?;
    next(pair, &[], &[])?;
    next(pair, &[from(PLAIN, two, 0)], &[two, one])?;
    pair.case("session-closes");
    pair.same(version, |side| in_session(side, version, ids[side.index], -1, &[]))?;
    pair.same(version, |side| in_session(side, version, ids[side.index], epoch + 1, &[]))?;
    Ok(())
}

fn errors(pair: &mut Pair, version: i16, one: i32) -> Result<()> {
    pair.case("session-unknown");
    for epoch in [1, 0, -1, 7] {
        pair.same(version, |side| in_session(side, version, 12_345, epoch, &[from(PLAIN, one, 8)]))?;
    }
    pair.case("session-none-with-epoch");
    for epoch in [1, -2, i32::MAX] {
        pair.same(version, |side| in_session(side, version, 0, epoch, &[from(PLAIN, one, 8)]))?;
    }
    pair.case("session-wrong-epoch");
    let ids = open(pair, version, &[from(PLAIN, one, 8)])?;
    for epoch in [2, 1, 1, 0, 1] {
        pair.same(version, |side| in_session(side, version, ids[side.index], epoch, &[]))?;
    }
    pair.case("session-of-nothing");
    open(pair, version, &[])?;
    pair.case("session-reopened");
    let ids = open(pair, version, &[from(PLAIN, one, 0)])?;
    pair.same(version, |side| in_session(side, version, ids[side.index], 0, &[from(PLAIN, one, 4)]))?;
    Ok(())
}

/// What a limit left out comes next: the order turns.
fn limits(pair: &mut Pair, version: i16, [one, two]: [i32; 2]) -> Result<()> {
    pair.case("session-limit");
    let answers = pair.same(version, |side| {
        in_session(side, version, 0, 0, &[from(PLAIN, one, 0), from(PLAIN, two, 0)]).with_max_bytes(100)
    })?;
    let ids = answers.each(|answer| answer.session_id);
    for epoch in 1..5 {
        pair.same(version, |side| in_session(side, version, ids[side.index], epoch, &[]).with_max_bytes(100))?;
    }
    Ok(())
}

fn unknown(pair: &mut Pair, version: i16, one: i32) -> Result<()> {
    pair.case("session-with-unknown");
    let answers = pair.same(version, |side| {
        let mut request = in_session(side, version, 0, 0, &[from(PLAIN, one, 8), from("nobody", 3, 0)]);
        if version >= 13 {
            request.topics[1].topic_id = Uuid::from_u128(0xbeef);
        }
        request
    })?;
    let ids = answers.each(|answer| answer.session_id);
    for epoch in 1..3 {
        pair.same(version, |side| in_session(side, version, ids[side.index], epoch, &[]))?;
    }
    pair.case("session-names-and-ids-mixed");
    if version >= 13 {
        pair.same(12, |side| in_session(side, 12, ids[side.index], 3, &[from(PLAIN, one, 8)]))?;
    }
    Ok(())
}

/// The topic goes while a session holds its partition.
fn deleted(pair: &mut Pair, version: i16) -> Result<()> {
    pair.case("session-topic-deleted");
    let name = pair.fresh_topic("session");
    make_topics(pair, vec![topic(&name, 1, &[])])?;
    add(pair, &name, 0, 1)?;
    let ids = open(pair, version, &[from(&name, 0, 1)])?;
    let newest = pair.newest::<DeleteTopicsRequest>();
    pair.same(newest, |_| delete(newest, &[&name]))?;
    for epoch in 1..3 {
        pair.same(version, |side| in_session(side, version, ids[side.index], epoch, &[]))?;
    }
    Ok(())
}

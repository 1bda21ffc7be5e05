//! What records may hold comes back unchanged, in every codec; compacted topics want keys.

use super::{PLAIN, make_topics, same_log};
use crate::batches::{Batch, Codec, Rec, T0};
use crate::pair::Pair;
use crate::requests::{create, produce, topic};
use anyhow::Result;
use kafka_protocol::messages::{CreateTopicsRequest, ProduceRequest};

pub fn script(pair: &mut Pair) -> Result<()> {
    let version = pair.newest::<ProduceRequest>();
    pair.case("records-of-all-kinds");
    let records = vec![
        Rec { key: None, value: None, timestamp: T0, headers: Vec::new() },
        Rec { key: Some(Vec::new()), value: Some(Vec::new()), timestamp: T0 - 5, headers: Vec::new() },
        Rec {
            key: Some(vec![0, 255, 128]),
            value: Some(b"with headers".to_vec()),
            timestamp: T0 + 5,
            headers: vec![("a".into(), None), ("".into(), Some(Vec::new())), ("a".into(), Some(vec![0; 300]))],
        },
        Rec { key: Some(vec![b'k'; 5_000]), value: Some(vec![b'v'; 70_000]), timestamp: T0, headers: Vec::new() },
    ];
    let partition = pair.fresh_partition(PLAIN);
    for codec in Codec::ALL {
        let batch = Batch::of(records.clone()).with(|batch| batch.codec = codec).build();
        pair.same(version, |_| produce(-1, PLAIN, vec![(partition, Some(batch.clone()))]))?;
    }
    same_log(pair, PLAIN, partition)?;

    pair.case("compacted-create");
    let name = pair.fresh_topic("compacted");
    let created = pair.newest::<CreateTopicsRequest>();
    let answers = pair.same(created, |_| create(vec![topic(&name, 1, &[("cleanup.policy", "compact")])]))?;
    if !answers.all(|answer| answer.topics.iter().all(|topic| topic.error_code == 0)) {
        return Ok(());
    }
    pair.case("compacted");
    super::learn_topics(pair, std::slice::from_ref(&name))?;
    let mut keyless = Batch::small(3);
    keyless.records[1].key = None;
    for codec in Codec::ALL {
        for batch in [Batch::small(2), keyless.clone()] {
            let batch = batch.with(|batch| batch.codec = codec).build();
            pair.same(version, |_| produce(1, &name, vec![(0, Some(batch.clone()))]))?;
        }
    }
    same_log(pair, &name, 0)?;
    pair.case("compacted-and-deleted");
    let name = pair.fresh_topic("compacted");
    make_topics(pair, vec![topic(&name, 1, &[("cleanup.policy", "compact,delete")])])
}

//! The shards' counters for operators: one JSON line on stdout at SIGUSR1, and in the log at the end.
//!
//! ```text
//! {"shards":[{"shard":0,"broker":0,"appends":12,...,"requests_by_key":{"0":7},"errors_by_code":{}},...]}
//! ```
//! The control plane's thread reads the shards' cells; the shards do not notice.

use crate::base::ids::BrokerId;
use crate::base::metrics::ShardMetrics;
use serde_json::{Map, Value, json};
use std::io::{self, Write};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

/// The cells of all shards of a node.
#[derive(Clone, Default)]
pub struct Counters {
    shards: Vec<(BrokerId, Arc<ShardMetrics>)>,
}

impl Counters {
    /// Cells for one more shard.
    pub fn add(&mut self, broker: BrokerId) -> Arc<ShardMetrics> {
        let metrics = Arc::<ShardMetrics>::default();
        self.shards.push((broker, Arc::clone(&metrics)));
        metrics
    }

    /// Writes the line to stdout at each SIGUSR1, from when this returns on.
    pub fn tell_on_signal(self) -> io::Result<impl Future<Output = ()> + use<>> {
        let mut asked = signal(SignalKind::user_defined1())?;
        Ok(async move {
            while asked.recv().await.is_some() {
                // Nobody may be reading: that is no reason to stop.
                let _ = io::stdout().write_all(format!("{}\n", self.json()).as_bytes());
            }
        })
    }

    /// The same line to the log.
    pub fn log(&self) {
        info!("counted {}", self.json());
    }

    fn json(&self) -> Value {
        json!({ "shards": self.shards.iter().map(|(broker, metrics)| one(*broker, metrics)).collect::<Vec<_>>() })
    }
}

fn one(broker: BrokerId, metrics: &ShardMetrics) -> Value {
    let by_number = |pairs: Vec<(i16, u64)>| -> Map<String, Value> {
        pairs.into_iter().map(|(number, count)| (number.to_string(), count.into())).collect()
    };
    let mut all = Map::new();
    all.insert("shard".into(), broker.shard().0.into());
    all.insert("broker".into(), broker.0.into());
    all.extend(metrics.named().map(|(name, count)| (name.to_owned(), count.into())));
    all.insert("requests_by_key".into(), by_number(metrics.requests().collect()).into());
    all.insert("errors_by_code".into(), by_number(metrics.errors().collect()).into());
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{NodeId, ShardId};

    #[test]
    fn every_shard_tells_what_it_counted() {
        let mut counters = Counters::default();
        counters.add(BrokerId::new(NodeId(3), ShardId(0)));
        let second = counters.add(BrokerId::new(NodeId(3), ShardId(1)));
        second.appends.add(7);
        second.request(0);
        second.error(6);
        let json = counters.json();
        assert_eq!(json["shards"][0]["appends"], 0);
        let second = &json["shards"][1];
        assert_eq!((&second["shard"], &second["broker"]), (&json!(1), &json!(3001)));
        assert_eq!((&second["appends"], &second["cross_shard_messages"]), (&json!(7), &json!(0)));
        assert_eq!((&second["requests_by_key"], &second["errors_by_code"]), (&json!({"0": 1}), &json!({"6": 1})));
    }
}

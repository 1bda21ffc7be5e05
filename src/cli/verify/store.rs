//! The embedded store's journal, and what it says of topics.

use super::finding::{Check, Findings, Place, Severity};
use crate::base::ids::TopicId;
use crate::cli::dump::DumpError;
use crate::cli::dump::store::corrupt;
use crate::controller::layout;
use crate::coordination::embedded::inspect;
use std::collections::BTreeMap;
use std::path::Path;

pub struct StoreFacts {
    pub topics: BTreeMap<String, TopicFacts>,
    pub cluster_id: Option<String>,
}

pub struct TopicFacts {
    pub id: TopicId,
    /// None: its settings are damaged.
    pub is_compacted: Option<bool>,
}

impl StoreFacts {
    /// Reads the journal whole; None where it is damaged. `live`: a broker may be writing its last change.
    pub fn read(path: &Path, live: bool, findings: &mut Findings) -> Option<StoreFacts> {
        let kind = (Severity::Error, Check::Store);
        let inspected = match inspect(path, &mut |_, _, _| {}) {
            Ok(inspected) => inspected,
            Err(error) => {
                match corrupt(error) {
                    DumpError::Corrupt(corrupt) => {
                        let here = (path, Place::Byte(corrupt.position));
                        let what = ("a snapshot of the store, and changes that follow one another", corrupt.reason);
                        let meaning = "a start refuses the store, in which topics and settings are; restore the file from \
                                       a copy. Records are not affected";
                        findings.add(kind, here, what, meaning);
                    }
                    DumpError::Read(e) | DumpError::Output(e) => findings.add_unreadable(path, &e),
                }
                return None;
            }
        };
        let left = inspected.file_bytes - inspected.valid_bytes;
        if left > 0 && !live {
            let here = (path, Place::Byte(inspected.valid_bytes));
            let what = ("a whole change".to_owned(), format!("{left} bytes that are none"));
            let meaning = "the trace of a crash: a change that was never answered; the next start cuts it";
            findings.add((Severity::Warning, Check::Store), here, what, meaning);
        }
        let tree = &inspected.tree;
        let mut facts = StoreFacts { topics: BTreeMap::new(), cluster_id: None };
        let mut bad = |error: layout::LayoutError| {
            let what = (format!("Kafka's layout at {}", error.path), error.reason);
            let meaning = "a start refuses the store, in which topics and settings are; restore the file from a copy";
            findings.add(kind, (path, Place::Whole), what, meaning);
        };
        if let Ok((data, _)) = tree.get(layout::CLUSTER_ID) {
            facts.cluster_id = layout::decode_cluster_id(&data).map_err(&mut bad).ok();
        }
        for topic in tree.children(layout::TOPICS).unwrap_or_default() {
            let Ok((data, _)) = tree.get(&layout::topic_path(&topic)) else { continue };
            let Ok((id, _)) = layout::decode_topic(&topic, &data).map_err(&mut bad) else { continue };
            let config_path = layout::topic_config_path(&topic);
            let is_compacted = match tree.get(&config_path) {
                Err(_) => Some(false),
                Ok((data, _)) => layout::decode_config(&config_path, &data).map_err(&mut bad).ok().map(|config| {
                    config.get("cleanup.policy").is_some_and(|policy| policy.split(',').any(|p| p.trim() == "compact"))
                }),
            };
            facts.topics.insert(topic, TopicFacts { id, is_compacted });
        }
        Some(facts)
    }
}

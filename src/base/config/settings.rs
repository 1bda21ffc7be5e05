//! A node's settings in layers: the table's defaults, server.properties, then what clients set while it runs.

use super::error::ConfigError;
use super::key::Update;
use super::keys::{broker_key, broker_keys, broker_synonyms, is_dynamic_only};
use super::value::Value;
use std::collections::{BTreeMap, HashMap};

/// Settings as texts, by name.
pub type Texts = BTreeMap<String, String>;

/// All layers, and the values that result.
#[derive(Clone, Debug)]
pub struct Settings {
    /// From server.properties and the command line.
    pub(super) statics: Texts,
    /// Dynamic, for all nodes of the cluster.
    pub(super) dynamic_defaults: Texts,
    /// Dynamic, for this node; the strongest.
    pub(super) dynamic_node: Texts,
    /// Absent where the value is null.
    values: HashMap<&'static str, Value>,
    /// Values that were found out at the start, whatever the layers say.
    fixed: HashMap<&'static str, Value>,
}

impl Settings {
    /// From what the file and the command line say. Unknown names are kept: Kafka describes them too.
    pub fn from_statics(mut statics: Texts) -> Result<Settings, Vec<(String, ConfigError)>> {
        // Two names of one thing (KafkaConfig.populateSynonyms).
        for (given, other) in [("broker.id", "node.id"), ("node.id", "broker.id")] {
            if let (Some(id), false) = (statics.get(given).cloned(), statics.contains_key(other)) {
                statics.insert(other.to_owned(), id);
            }
        }
        let mut refused = Vec::new();
        let values = parse_all(&statics, &mut refused);
        if !refused.is_empty() {
            return Err(refused);
        }
        Ok(Settings {
            statics,
            dynamic_defaults: Texts::new(),
            dynamic_node: Texts::new(),
            values,
            fixed: HashMap::new(),
        })
    }

    /// The same node with other dynamic settings. What does not parse is left out, and returned: a cluster's stored
    /// settings must not keep a node from running.
    pub fn with_dynamic(&self, defaults: &Texts, node: &Texts) -> (Settings, Vec<(String, ConfigError)>) {
        let mut refused = Vec::new();
        let mut sound = |layer: &Texts| -> Texts {
            let mut kept = layer.clone();
            kept.retain(|name, text| match broker_key(name).map(|key| Value::parse(key, text)) {
                Some(Err(error)) => {
                    refused.push((name.clone(), error));
                    false
                }
                _ => !broker_key(name).is_some_and(|key| key.update == Update::ReadOnly),
            });
            kept
        };
        let (dynamic_defaults, dynamic_node) = (sound(defaults), sound(node));
        let mut texts = self.statics.clone();
        override_with(&mut texts, &dynamic_defaults);
        override_with(&mut texts, &dynamic_node);
        let mut values = parse_all(&texts, &mut refused);
        values.extend(self.fixed.clone());
        let (statics, fixed) = (self.statics.clone(), self.fixed.clone());
        (Settings { statics, dynamic_defaults, dynamic_node, values, fixed }, refused)
    }

    /// Fixes a value for as long as the node runs.
    pub(super) fn fix(&mut self, name: &'static str, value: Value) {
        self.values.insert(name, value.clone());
        self.fixed.insert(name, value);
    }

    /// The value in force; None where it is null.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// The value of a setting that always has one.
    pub(super) fn value(&self, name: &str) -> &Value {
        self.get(name).unwrap_or_else(|| panic!("{name} has a default in the table"))
    }

    pub(super) fn integer(&self, name: &str) -> i64 {
        self.value(name).as_i64()
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.value(name).as_bool()
    }

    /// A text setting; None where it is null or empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).map(Value::as_str).filter(|text| !text.is_empty())
    }
}

/// A dynamic value takes the place of the static one, whichever of the synonyms either uses.
fn override_with(texts: &mut Texts, layer: &Texts) {
    for (name, text) in layer {
        if let Some(key) = broker_key(name) {
            for synonym in broker_synonyms(key.name) {
                texts.remove(*synonym);
            }
        }
        texts.insert(name.clone(), text.clone());
    }
}

fn parse_all(texts: &Texts, refused: &mut Vec<(String, ConfigError)>) -> HashMap<&'static str, Value> {
    let mut values = HashMap::new();
    for key in broker_keys().filter(|key| !is_dynamic_only(key.name) || texts.contains_key(key.name)) {
        let value = match texts.get(key.name) {
            Some(text) => match Value::parse(key, text) {
                Ok(value) => Some(value),
                Err(error) => {
                    refused.push((key.name.to_owned(), error));
                    Value::default_of(key)
                }
            },
            None => Value::default_of(key),
        };
        if let Some(value) = value {
            values.insert(key.name, value);
        }
    }
    values
}

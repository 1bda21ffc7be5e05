//! AlterConfigs and IncrementalAlterConfigs: what the new settings of a topic or broker are, and whether they may be.

use super::broker::BrokerConfig;
use super::error::ConfigError;
use super::key::{Effect, Key, Type, Update};
use super::keys::{broker_key, is_own, topic_key};
use super::settings::Texts;
use super::value::Value;

/// Whose settings are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Topic,
    Broker,
}

/// One change to one setting (KIP-339).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit<'a> {
    Set(&'a str),
    Delete,
    /// Adds to a list what it lacks.
    Append(&'a str),
    /// Takes from a list what it has.
    Subtract(&'a str),
}

/// Applies one change to a resource's own settings. The result is not checked yet.
pub fn edit(scope: Scope, settings: &mut Texts, name: &str, edit: Edit<'_>) -> Result<(), ConfigError> {
    match edit {
        Edit::Set(text) => {
            settings.insert(name.to_owned(), text.to_owned());
        }
        Edit::Delete => {
            settings.remove(name);
        }
        Edit::Append(text) => {
            let key = list_key(scope, name, "append")?;
            let mut elements = split(&current(settings, key));
            let added: Vec<String> = split(text).into_iter().filter(|element| !elements.contains(element)).collect();
            elements.extend(added);
            settings.insert(name.to_owned(), elements.join(","));
        }
        Edit::Subtract(text) => {
            let key = list_key(scope, name, "subtract")?;
            let mut elements = split(&current(settings, key));
            for gone in split(text) {
                if let Some(at) = elements.iter().position(|element| *element == gone) {
                    elements.remove(at);
                }
            }
            settings.insert(name.to_owned(), elements.join(","));
        }
    }
    Ok(())
}

/// Checks one setting of a topic by itself: its name and value, not how it goes with others.
pub fn check_topic_setting(name: &str, text: &str) -> Result<(), ConfigError> {
    let key = topic_key(name).ok_or_else(|| ConfigError::UnknownTopicKey(name.to_owned()))?;
    let value = Value::parse(key, text)?;
    if name == "cleanup.policy" && value.as_list().iter().any(|word| word == "compact") {
        return Err(ConfigError::invalid(name, text, "compaction is not built yet; use delete"));
    }
    Ok(())
}

/// Checks what is to become all of the dynamic settings of this node (`for_all` false) or of all nodes (`for_all`
/// true), in Kafka's order and words (`DynamicBrokerConfig.validate`). The caller answers INVALID_REQUEST.
/// Unknown names are accepted, as Kafka does for the sake of plugins.
pub fn check_broker_settings(broker: &BrokerConfig, settings: &Texts, for_all: bool) -> Result<(), ConfigError> {
    let named = |test: &dyn Fn(&Key) -> bool| -> Vec<&str> {
        settings.keys().filter_map(|name| broker_key(name)).filter(|key| test(key)).map(|key| key.name).collect()
    };
    let refuse = |why: &str, names: Vec<&str>| match names.is_empty() {
        true => Ok(()),
        false => Err(ConfigError::Refused(format!("{why}: Set({})", names.join(", ")))),
    };
    refuse(
        "Cannot update these configs dynamically",
        named(&|key| key.update == Update::ReadOnly || is_own(key.name)),
    )?;
    refuse(
        "These security configs can be dynamically updated only per-listener using the listener prefix",
        named(&|key| key.name.starts_with("ssl.")),
    )?;
    if let Some(name) = settings.keys().find(|name| name.starts_with("listener.name.")) {
        return Err(ConfigError::Refused(format!("{name}: settings of a single listener are not built yet")));
    }
    for (name, text) in settings {
        let Some(key) = broker_key(name) else { continue };
        let value = Value::parse(key, text)?;
        if let Effect::NotBuilt(why) = key.effect
            && Value::default_of(key).as_ref() != Some(&value)
        {
            let (name, value) = (name.clone(), value.to_string());
            return Err(ConfigError::NotBuilt { name, value, reason: why.to_owned() });
        }
    }
    if for_all {
        refuse(
            "Cannot update these configs at default cluster level, broker id must be specified",
            named(&|key| key.update == Update::PerBroker),
        )?;
    }
    // Sockets are bound once, at the start.
    refuse("Cannot update these configs dynamically", named(&|key| key.update == Update::PerBroker))?;
    let empty = Texts::new();
    let (defaults, own) = match for_all {
        true => (settings, &broker.settings().dynamic_node),
        false => (&broker.settings().dynamic_defaults, settings),
    };
    match broker.with_dynamic(defaults, own).1.into_iter().next() {
        // What was stored before and is unsound must not keep good settings out.
        Some(_) if broker.with_dynamic(&broker.settings().dynamic_defaults, &empty).1.is_empty() => {
            let error = broker.with_dynamic(defaults, own).1.remove(0).1;
            Err(ConfigError::Refused(error.to_string()))
        }
        _ => Ok(()),
    }
}

fn list_key(scope: Scope, name: &str, change: &str) -> Result<&'static Key, ConfigError> {
    let key = match scope {
        Scope::Topic => topic_key(name).ok_or_else(|| ConfigError::UnknownTopicKey(name.to_owned()))?,
        Scope::Broker => {
            broker_key(name).ok_or_else(|| ConfigError::Refused(format!("Unknown config name: {name}")))?
        }
    };
    match key.kind {
        Type::List => Ok(key),
        _ => Err(ConfigError::Conflict(format!("Config value {change} is not allowed for config key: {name}"))),
    }
}

fn current(settings: &Texts, key: &Key) -> String {
    settings.get(key.name).map_or_else(|| key.default.unwrap_or_default().to_owned(), Clone::clone)
}

fn split(text: &str) -> Vec<String> {
    text.split(',').filter(|element| !element.is_empty()).map(str::to_owned).collect()
}

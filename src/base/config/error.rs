//! Why a setting is refused.

/// A setting that cannot be taken. The texts of the first three are Kafka's own, since clients show them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The value does not parse, or lies outside what is allowed.
    #[error("Invalid value {value} for configuration {name}: {reason}")]
    Invalid { name: String, value: String, reason: String },
    /// A topic has no such setting.
    #[error("Unknown topic config name: {0}")]
    UnknownTopicKey(String),
    /// Settings of a topic that are fine each by itself contradict each other.
    #[error("{0}")]
    Conflict(String),
    /// Not possible on this broker, or not in this way.
    #[error("{0}")]
    Refused(String),
    /// Kafka has the setting, this broker not yet; accepting it would mean ignoring what its user relies on.
    #[error("{name} = {value}: {reason}")]
    NotBuilt { name: String, value: String, reason: String },
}

impl ConfigError {
    pub(super) fn invalid(name: &str, value: impl Into<String>, reason: impl Into<String>) -> Self {
        ConfigError::Invalid { name: name.into(), value: value.into(), reason: reason.into() }
    }

    /// Whether Kafka puts "Invalid config value for resource …: " before the text when a client alters a topic
    /// (its ConfigException, not its InvalidConfigurationException).
    pub fn names_resource(&self) -> bool {
        !matches!(self, ConfigError::UnknownTopicKey(_) | ConfigError::Conflict(_))
    }

    /// The reason alone, for a message that names key and value itself.
    pub(super) fn reason(&self) -> String {
        match self {
            ConfigError::Invalid { reason, .. } | ConfigError::NotBuilt { reason, .. } => reason.clone(),
            ConfigError::UnknownTopicKey(_) | ConfigError::Conflict(_) | ConfigError::Refused(_) => self.to_string(),
        }
    }
}

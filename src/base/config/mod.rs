//! Settings: one typed table for every key, what the broker runs with, and what a topic resolves to.

pub mod alter;
pub mod broker;
pub mod describe;
pub mod error;
pub mod file;
pub mod groups;
pub mod key;
pub mod keys;
pub mod listeners;
pub mod settings;
pub mod topic;
mod topic_resolve;
pub mod value;

pub use broker::{BrokerConfig, FlushPolicy};
pub use error::ConfigError;
pub use topic::TopicConfig;

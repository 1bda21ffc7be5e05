//! What a node runs with: the settings that the broker really uses, typed, and all others for those who ask.

use super::error::ConfigError;
use super::groups::GroupConfig;
use super::listeners::Listeners;
use super::settings::{Settings, Texts};
use super::topic::TopicConfig;
use super::topic_resolve::{self, TopicValues};
use super::value::Value;
use crate::base::ids::{NodeId, SHARDS_PER_NODE};
use std::path::PathBuf;
use std::time::Duration;

/// What acks=all waits for (`log.flush.policy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushPolicy {
    /// The disk of every in-sync replica.
    Disk,
    /// The memory of every in-sync replica, as Kafka does.
    Os,
}

/// `log.cleaner.*`: how compaction runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CleanerConfig {
    pub enable: bool,
    /// Memory for the keys that a pass has seen.
    pub dedupe_buffer_bytes: u64,
    /// The share of that memory that is used.
    pub load_factor: f64,
    /// What it reads and writes together; 0: no limit.
    pub io_bytes_per_second_max: u64,
    pub backoff_ms: u64,
}

/// A node's settings in force. Fields bear Kafka's names with their unit; None stands for "not limited" or "not set".
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// `broker.id`; None: whatever the data directories were formatted with, or 0 at format.
    pub node_id: Option<NodeId>,
    pub rack: Option<String>,
    /// None: as formatted, or one per core at format.
    pub shards: Option<u16>,
    /// Cores to run on; None: all that this process may use.
    pub cores: Option<u16>,
    pub listeners: Listeners,
    /// In the order given, each once.
    pub log_dirs: Vec<PathBuf>,
    pub flush_policy: FlushPolicy,
    /// Bytes of each journal; None: segments are synced (`log.flush.method`).
    pub journal_bytes: Option<u64>,

    pub num_partitions: i32,
    pub default_replication_factor: i32,
    pub auto_create_topics_enable: bool,
    pub delete_topic_enable: bool,
    /// What topics have where they set nothing themselves.
    pub topic_defaults: TopicConfig,

    pub socket_request_max_bytes: u32,
    /// None: the kernel tunes it.
    pub socket_send_buffer_bytes: Option<u32>,
    /// None: the kernel tunes it.
    pub socket_receive_buffer_bytes: Option<u32>,
    pub socket_listen_backlog_size: u32,
    /// None: idle connections stay.
    pub connections_max_idle_ms: Option<u64>,
    /// Of each shard; `i32::MAX` means no limit.
    pub max_connections: u32,
    pub max_connections_per_ip: u32,
    pub max_connections_per_ip_overrides: Vec<(String, u32)>,
    pub fetch_max_bytes: u32,
    pub max_incremental_fetch_session_cache_slots: u32,

    pub cleaner: CleanerConfig,
    pub producer_id_expiration_ms: u64,
    pub producer_id_expiration_check_interval_ms: u64,
    pub log_retention_check_interval_ms: u64,
    pub log_initial_task_delay_ms: u64,
    pub log_flush_offset_checkpoint_interval_ms: u64,
    pub log_flush_start_offset_checkpoint_interval_ms: u64,
    pub groups: GroupConfig,

    pub scrub_enable: bool,
    pub scrub_period: Duration,
    /// Of the node.
    pub scrub_bytes_per_second: u64,
    /// A round that began before this is begun anew.
    pub scrub_begin_ms: i64,

    pub(super) settings: Settings,
    pub(super) topic_values: TopicValues,
}

impl BrokerConfig {
    /// From server.properties' names and texts. Every refusal bears the name of the setting at fault.
    pub fn from_texts(texts: Texts) -> Result<BrokerConfig, Vec<(String, ConfigError)>> {
        Self::from_settings(Settings::from_statics(texts)?)
    }

    /// The same node under other dynamic settings: those of all nodes, and its own. Settings that are refused are left
    /// out and returned; they were checked before they were stored, so this is for the log.
    pub fn with_dynamic(&self, defaults: &Texts, node: &Texts) -> (BrokerConfig, Vec<(String, ConfigError)>) {
        let (settings, mut refused) = self.settings.with_dynamic(defaults, node);
        match Self::from_settings(settings) {
            Ok(config) => (config, refused),
            Err(errors) => {
                refused.extend(errors);
                (self.clone(), refused)
            }
        }
    }

    /// The same settings with what this node really runs with, for those who ask: the shards that it was formatted with,
    /// and how many cores they run on.
    pub fn in_effect(mut self, shards: u16, cores: usize) -> BrokerConfig {
        let cores = u16::try_from(cores).unwrap_or(u16::MAX);
        (self.shards, self.cores) = (Some(shards), Some(cores));
        self.settings.fix("shards", Value::Int(i32::from(shards)));
        self.settings.fix("cores", Value::Int(i32::from(cores)));
        self
    }

    /// All settings, with where each comes from.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn from_settings(settings: Settings) -> Result<BrokerConfig, Vec<(String, ConfigError)>> {
        let mut refused = check_together(&settings);
        refused.extend(super::groups::check_together(&settings));
        let mut keep = |error: Option<(String, ConfigError)>| refused.extend(error);
        let listeners = Listeners::from_settings(&settings).map_err(|error| keep(Some(error))).ok();
        let log_dirs = log_dirs(&settings).map_err(|error| keep(Some(error))).ok();
        let overrides = connection_overrides(&settings).map_err(|error| keep(Some(error))).ok();
        let topic_values = topic_resolve::defaults_of(&settings).map_err(|error| keep(Some(named(error)))).ok();
        let (Some(listeners), Some(log_dirs), Some(overrides), Some(topic_values), true) =
            (listeners, log_dirs, overrides, topic_values, refused.is_empty())
        else {
            return Err(refused);
        };
        Ok(Self::assemble(settings, listeners, log_dirs, overrides, topic_values))
    }

    fn assemble(
        settings: Settings,
        listeners: Listeners,
        log_dirs: Vec<PathBuf>,
        max_connections_per_ip_overrides: Vec<(String, u32)>,
        topic_values: TopicValues,
    ) -> BrokerConfig {
        // The checks of the table leave no negative number where these are unsigned.
        let size = |name: &str| u32::try_from(settings.integer(name)).unwrap_or(0);
        let time = |name: &str| u64::try_from(settings.integer(name)).unwrap_or(u64::MAX);
        let int = |name: &str| i32::try_from(settings.integer(name)).unwrap_or(i32::MAX);
        let optional = |name: &str| u32::try_from(settings.integer(name)).ok();
        let count = |name: &str| settings.get(name).and_then(|value| u16::try_from(value.as_i64()).ok());
        BrokerConfig {
            node_id: Some(int("broker.id")).filter(|id| *id >= 0).map(NodeId),
            rack: settings.text("broker.rack").map(str::to_owned),
            shards: count("shards"),
            cores: count("cores"),
            listeners,
            log_dirs,
            flush_policy: match settings.text("log.flush.policy") {
                Some("os") => FlushPolicy::Os,
                _ => FlushPolicy::Disk,
            },
            journal_bytes: (settings.text("log.flush.method") == Some("journal"))
                .then(|| u64::try_from(settings.integer("log.journal.bytes")).unwrap_or(0).next_multiple_of(1 << 20)),
            num_partitions: int("num.partitions"),
            default_replication_factor: int("default.replication.factor"),
            auto_create_topics_enable: settings.flag("auto.create.topics.enable"),
            delete_topic_enable: settings.flag("delete.topic.enable"),
            topic_defaults: topic_resolve::typed(&topic_values),
            socket_request_max_bytes: size("socket.request.max.bytes"),
            socket_send_buffer_bytes: optional("socket.send.buffer.bytes"),
            socket_receive_buffer_bytes: optional("socket.receive.buffer.bytes"),
            socket_listen_backlog_size: size("socket.listen.backlog.size"),
            connections_max_idle_ms: u64::try_from(settings.integer("connections.max.idle.ms")).ok(),
            max_connections: size("max.connections"),
            max_connections_per_ip: size("max.connections.per.ip"),
            max_connections_per_ip_overrides,
            fetch_max_bytes: size("fetch.max.bytes"),
            max_incremental_fetch_session_cache_slots: size("max.incremental.fetch.session.cache.slots"),
            cleaner: cleaner(&settings),
            producer_id_expiration_ms: time("producer.id.expiration.ms"),
            producer_id_expiration_check_interval_ms: time("producer.id.expiration.check.interval.ms"),
            log_retention_check_interval_ms: time("log.retention.check.interval.ms"),
            log_initial_task_delay_ms: time("log.initial.task.delay.ms"),
            log_flush_offset_checkpoint_interval_ms: time("log.flush.offset.checkpoint.interval.ms"),
            log_flush_start_offset_checkpoint_interval_ms: time("log.flush.start.offset.checkpoint.interval.ms"),
            groups: GroupConfig::of(&settings),
            scrub_enable: settings.flag("log.scrub.enable"),
            scrub_period: Duration::from_secs(time("log.scrub.period.hours").saturating_mul(3600)),
            scrub_bytes_per_second: time("log.scrub.max.bytes.per.second"),
            scrub_begin_ms: settings.integer("log.scrub.begin.ms"),
            settings,
            topic_values,
        }
    }
}

impl Default for BrokerConfig {
    /// A node of which nothing is configured.
    fn default() -> Self {
        Self::from_texts(Texts::new()).expect("the defaults of the table agree with each other")
    }
}

impl TopicConfig {
    /// What a topic runs with: its own settings over the broker's (which include the dynamic ones).
    /// Refuses what Kafka refuses of a topic's settings, in Kafka's words, and what is not built.
    pub fn resolve(broker: &BrokerConfig, overrides: &Texts) -> Result<TopicConfig, ConfigError> {
        Ok(topic_resolve::typed(&topic_resolve::values_of(&broker.topic_values, overrides)?))
    }
}

/// Puts the setting's name beside its error.
fn named(error: ConfigError) -> (String, ConfigError) {
    let name = match &error {
        ConfigError::Invalid { name, .. } | ConfigError::NotBuilt { name, .. } => name.clone(),
        ConfigError::UnknownTopicKey(name) => name.clone(),
        ConfigError::Conflict(_) | ConfigError::Refused(_) => String::new(),
    };
    (name, error)
}

/// What Kafka's KafkaConfig.validateValues refuses of settings that are fine each by itself.
fn check_together(settings: &Settings) -> Vec<(String, ConfigError)> {
    let integer = |name: &str| settings.integer(name);
    let given = |name: &str| settings.get(name).map(Value::as_i64);
    let node_max = i64::from(i32::MAX / SHARDS_PER_NODE) - 1;
    let idle = integer("connections.max.idle.ms");
    let topic = |name: &str| given(name).unwrap_or(1);
    let key_bytes_min = integer("log.cleaner.threads").max(1).saturating_mul(1 << 20);
    let rules: [(&str, bool, &str); 11] = [
        (
            "log.cleaner.dedupe.buffer.size",
            integer("log.cleaner.dedupe.buffer.size") > key_bytes_min,
            "must be more than 1048576 for each of log.cleaner.threads",
        ),
        ("node.id", integer("node.id") == integer("broker.id"), "must be the same as broker.id"),
        (
            "broker.id",
            (-1..=node_max).contains(&integer("broker.id")),
            "must be 0 to 2147482, since clients see it times 1000 (or -1, or unset)",
        ),
        ("log.roll.ms", topic("log.roll.ms") >= 1, "must be at least 1"),
        ("log.roll.jitter.ms", topic("log.roll.jitter.ms") >= 0, "must be at least 0"),
        ("log.retention.ms", retention_is_sound(settings), "must be at least 1, or -1 for ever"),
        (
            "queued.max.request.bytes",
            integer("queued.max.request.bytes") <= 0
                || integer("queued.max.request.bytes") >= integer("socket.request.max.bytes"),
            "must be at least socket.request.max.bytes",
        ),
        (
            "max.connections.per.ip",
            integer("max.connections.per.ip") > 0 || settings.text("max.connections.per.ip.overrides").is_some(),
            "can be 0 only if max.connections.per.ip.overrides is set",
        ),
        (
            "connection.failed.authentication.delay.ms",
            idle < 0 || integer("connection.failed.authentication.delay.ms") < idle,
            "must be less than connections.max.idle.ms",
        ),
        (
            "replica.fetch.wait.max.ms",
            integer("replica.fetch.wait.max.ms") <= integer("replica.socket.timeout.ms"),
            "must be at most replica.socket.timeout.ms",
        ),
        (
            "replica.fetch.wait.max.ms",
            integer("replica.fetch.wait.max.ms") <= integer("replica.lag.time.max.ms"),
            "must be at most replica.lag.time.max.ms",
        ),
    ];
    let broken = rules.into_iter().filter(|(_, holds, _)| !holds);
    broken
        .map(|(name, _, reason)| {
            let value = settings.get(name).map(ToString::to_string).unwrap_or_default();
            (name.to_owned(), ConfigError::invalid(name, value, reason))
        })
        .collect()
}

fn cleaner(settings: &Settings) -> CleanerConfig {
    let long = |name: &str| u64::try_from(settings.integer(name)).unwrap_or(0);
    let double = |name: &str| settings.value(name).as_f64();
    let rate = double("log.cleaner.io.max.bytes.per.second");
    CleanerConfig {
        enable: settings.flag("log.cleaner.enable"),
        dedupe_buffer_bytes: long("log.cleaner.dedupe.buffer.size"),
        load_factor: double("log.cleaner.io.buffer.load.factor"),
        // A limit that no disk reaches is none; Kafka divides by it, so that 0 and less stop it altogether.
        io_bytes_per_second_max: if rate >= u64::MAX as f64 { 0 } else { (rate as u64).max(1) },
        backoff_ms: long("log.cleaner.backoff.ms"),
    }
}

fn retention_is_sound(settings: &Settings) -> bool {
    let strongest = ["log.retention.ms", "log.retention.minutes", "log.retention.hours"]
        .iter()
        .find_map(|name| settings.get(name))
        .map_or(1, Value::as_i64);
    strongest != 0
}

fn log_dirs(settings: &Settings) -> Result<Vec<PathBuf>, (String, ConfigError)> {
    let name = if settings.get("log.dirs").is_some() { "log.dirs" } else { "log.dir" };
    let text = settings.value(name).as_str();
    let mut dirs: Vec<PathBuf> = Vec::new();
    for dir in text.split(',').map(str::trim).filter(|dir| !dir.is_empty()).map(PathBuf::from) {
        if dirs.contains(&dir) {
            let reason = format!("{} stands twice", dir.display());
            return Err((name.to_owned(), ConfigError::invalid(name, text, reason)));
        }
        dirs.push(dir);
    }
    if dirs.is_empty() {
        return Err((name.to_owned(), ConfigError::invalid(name, text, "at least one directory is needed")));
    }
    Ok(dirs)
}

/// `address:limit,…`; the last colon parts them, so that IPv6 addresses need no brackets.
fn connection_overrides(settings: &Settings) -> Result<Vec<(String, u32)>, (String, ConfigError)> {
    let name = "max.connections.per.ip.overrides";
    let pairs = settings.text(name).unwrap_or("").split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let parsed = pair.rsplit_once(':').and_then(|(address, limit)| {
                let limit = limit.trim().parse::<i32>().ok().and_then(|limit| u32::try_from(limit).ok())?;
                let address = address.trim();
                let sound = |c: char| c.is_ascii_alphanumeric() || "-%._:".contains(c);
                (!address.is_empty() && address.chars().all(sound)).then(|| (address.to_owned(), limit))
            });
            parsed.ok_or_else(|| (name.to_owned(), ConfigError::invalid(name, pair, "must be address:limit,…")))
        })
        .collect()
}

//! What the table says about one setting.

/// Kafka's types of settings; the numbers of DescribeConfigs are given by [`Type::wire_id`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Bool,
    Int,
    Short,
    Long,
    Double,
    Str,
    List,
    Class,
    Password,
}

/// What a value must satisfy beyond its type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Check {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    BetweenDouble(f64, f64),
    /// One of these words; for a list, each element.
    OneOf(&'static [&'static str]),
    /// One of these words in any case.
    OneOfAnyCase(&'static [&'static str]),
    NonEmpty,
    /// -1 for the codec's default, or 1 to 9.
    GzipLevel,
    /// -1 for "as many as remote.log.manager.thread.pool.size", or at least 1.
    PoolSize,
    /// A version of Kafka's metadata, such as 3.9 or 3.9-IV0.
    MetadataVersion,
    /// `*`, or `partition:broker` pairs.
    ThrottledReplicas,
}

/// How a broker's setting may be changed while it runs (KIP-226).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    ReadOnly,
    /// For one broker only, never as the default of all.
    PerBroker,
    /// For one broker, or as the default of all.
    ClusterWide,
}

/// What a setting does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// What Kafka's documentation says.
    Built,
    /// It tunes something that this broker does not have; accepted, and said once. The text says why.
    NoEffect(&'static str),
    /// A user relies on it and it is not there: the start is refused unless it has its default. The text says why.
    NotBuilt(&'static str),
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub name: &'static str,
    pub kind: Type,
    /// As one would write it; None stands for Kafka's null.
    pub default: Option<&'static str>,
    pub check: Check,
    pub update: Update,
    pub effect: Effect,
    /// Kafka describes it only where it is set.
    pub internal: bool,
    /// One line, in our own words.
    pub doc: &'static str,
}

impl Key {
    /// Never shown to a client.
    pub fn is_sensitive(&self) -> bool {
        self.kind == Type::Password
    }

    pub fn is_read_only(&self) -> bool {
        self.update == Update::ReadOnly
    }

    /// The unit that the name ends in, where it names one.
    pub fn unit(&self) -> Option<&'static str> {
        const UNITS: &[(&str, &str)] = &[
            (".ms", "ms"),
            (".secs", "s"),
            (".seconds", "s"),
            (".minutes", "min"),
            (".hours", "h"),
            (".bytes", "bytes"),
            (".bytes.per.second", "bytes/s"),
            (".percentage", "%"),
        ];
        UNITS.iter().find(|(suffix, _)| self.name.ends_with(suffix)).map(|(_, unit)| *unit)
    }

    /// What is allowed, for messages and the reference page; empty if anything of the type is.
    pub fn allowed(&self) -> String {
        match self.check {
            Check::Any => String::new(),
            Check::AtLeast(min) => format!("at least {min}"),
            Check::Between(min, max) => format!("{min} to {max}"),
            Check::BetweenDouble(min, max) => format!("{min} to {max}"),
            Check::OneOf(words) | Check::OneOfAnyCase(words) => format!("one of {}", words.join(", ")),
            Check::NonEmpty => "not empty".into(),
            Check::GzipLevel => "1 to 9, or -1".into(),
            Check::PoolSize => "at least 1, or -1".into(),
            Check::MetadataVersion => "a version of Kafka such as 3.9".into(),
            Check::ThrottledReplicas => "* or partition:broker,…".into(),
        }
    }
}

impl Type {
    /// The type's number in DescribeConfigs (KIP-569).
    pub fn wire_id(self) -> i8 {
        match self {
            Type::Bool => 1,
            Type::Str => 2,
            Type::Int => 3,
            Type::Short => 4,
            Type::Long => 5,
            Type::Double => 6,
            Type::List => 7,
            Type::Class => 8,
            Type::Password => 9,
        }
    }

    /// Kafka's name of the type, as its messages have it.
    pub fn name(self) -> &'static str {
        match self {
            Type::Bool => "BOOLEAN",
            Type::Int => "INT",
            Type::Short => "SHORT",
            Type::Long => "LONG",
            Type::Double => "DOUBLE",
            Type::Str => "STRING",
            Type::List => "LIST",
            Type::Class => "CLASS",
            Type::Password => "PASSWORD",
        }
    }
}

/// Writes rows of the table: `"name": Type = "default", check, update, effect, "doc";` with `null` for no default.
/// A row that ends in `internal` is one that Kafka hides.
macro_rules! keys {
    ($($name:literal: $kind:ident = $default:tt, $check:expr, $update:ident, $effect:expr, $doc:literal
        $(, $internal:ident)?;)*) => {
        &[$($crate::base::config::key::Key {
            name: $name,
            kind: $crate::base::config::key::Type::$kind,
            default: $crate::base::config::key::keys!(@default $default),
            check: $check,
            update: $crate::base::config::key::Update::$update,
            effect: $effect,
            internal: $crate::base::config::key::keys!(@internal $($internal)?),
            doc: $doc,
        }),*]
    };
    (@default null) => { None };
    (@default $text:literal) => { Some($text) };
    (@internal internal) => { true };
    (@internal) => { false };
}
pub(super) use keys;

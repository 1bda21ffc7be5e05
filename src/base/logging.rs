//! The broker's own log: to stderr, and never more of one kind than a reader can take in.

use std::cell::Cell;
use std::time::{Duration, Instant};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// How often one call site may write where [`limited!`] is used.
pub const LIMIT_INTERVAL: Duration = Duration::from_secs(10);

/// A level or filter that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: {filter}: {reason}; use error, warn, info, debug, trace, or module=level,…")]
pub struct FilterError {
    origin: &'static str,
    filter: String,
    reason: String,
}

/// Begins to log to stderr, at `level` (`--log-level`), else as `RUST_LOG` says, else at info.
/// A second call changes nothing.
pub fn init(level: Option<&str>) -> Result<(), FilterError> {
    let environment = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let filter = filter(level, environment.as_deref())?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .finish();
    // Only a second call fails, and then the first one's log is in place.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

fn filter(level: Option<&str>, environment: Option<&str>) -> Result<EnvFilter, FilterError> {
    let (origin, text) = match (level, environment) {
        (Some(level), _) => ("--log-level", level),
        (None, Some(filter)) => ("RUST_LOG", filter),
        (None, None) => return Ok(EnvFilter::default().add_directive(LevelFilter::INFO.into())),
    };
    EnvFilter::builder().parse(text).map_err(|error| FilterError {
        origin,
        filter: text.to_owned(),
        reason: error.to_string(),
    })
}

/// Lets one event through per interval and counts the others. Of one thread; a call site keeps it in a thread local.
#[derive(Debug)]
pub struct RateLimit {
    interval: Duration,
    last: Cell<Option<Instant>>,
    suppressed: Cell<u64>,
}

impl RateLimit {
    pub const fn new(interval: Duration) -> Self {
        RateLimit { interval, last: Cell::new(None), suppressed: Cell::new(0) }
    }

    /// Whether an event at `now` may be told; if so, how many before it were not.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        if self.last.get().is_some_and(|last| now.saturating_duration_since(last) < self.interval) {
            self.suppressed.set(self.suppressed.get().saturating_add(1));
            return None;
        }
        self.last.set(Some(now));
        Some(self.suppressed.replace(0))
    }
}

/// Logs at a level (`error`, `warn`, `info`, `debug`) with `format!`'s arguments, once per [`LIMIT_INTERVAL`] for
/// each call site and thread; the next line that is written says how many were not.
#[macro_export]
macro_rules! limited {
    ($level:ident, $($argument:tt)+) => {{
        thread_local! {
            static LIMIT: $crate::base::logging::RateLimit =
                const { $crate::base::logging::RateLimit::new($crate::base::logging::LIMIT_INTERVAL) };
        }
        match LIMIT.with(|limit| limit.admit(std::time::Instant::now())) {
            Some(0) => tracing::$level!("{}", format_args!($($argument)+)),
            Some(more) => tracing::$level!("{} (and {more} more suppressed)", format_args!($($argument)+)),
            None => {}
        }
    }};
}
pub use limited;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_an_interval_is_told_and_the_others_are_counted() {
        let limit = RateLimit::new(Duration::from_secs(10));
        let start = Instant::now();
        assert_eq!(limit.admit(start), Some(0));
        assert_eq!(limit.admit(start + Duration::from_secs(1)), None);
        assert_eq!(limit.admit(start + Duration::from_secs(9)), None);
        assert_eq!(limit.admit(start + Duration::from_secs(10)), Some(2));
        assert_eq!(limit.admit(start + Duration::from_secs(30)), Some(0));
    }

    #[test]
    fn each_call_site_has_a_limit_of_its_own() {
        let told = |site: u8| {
            for _ in 0..3 {
                match site {
                    0 => limited!(debug, "site {site}"),
                    _ => limited!(debug, "another site {}", site),
                }
            }
        };
        told(0);
        told(1);
    }

    #[test]
    fn the_command_line_comes_before_the_environment() {
        assert_eq!(filter(Some("debug"), Some("warn")).expect("a level").to_string(), "debug");
        assert_eq!(filter(None, Some("corelog=trace")).expect("a filter").to_string(), "corelog=trace");
        assert_eq!(filter(None, None).expect("the default").to_string(), "info");
        let error = filter(Some("=loud=="), None).expect_err("no level").to_string();
        assert!(error.starts_with("--log-level: =loud==:"), "{error}");
    }
}

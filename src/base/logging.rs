//! The broker's own log: to stderr, and never more of one kind than a reader can take in.
//!
//! A disk that fails under ten thousand partitions, or a peer that sends nonsense all day, must not fill the journal of
//! the machine: each call site may write `BURST` lines, then `LINES_PER_SECOND`, and what was left out is counted.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use tracing::callsite::Identifier;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Full, Writer};
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::fmt::{FmtContext, format};
use tracing_subscriber::registry::LookupSpan;

/// Lines that one call site may write at once.
const BURST: u32 = 100;
/// Lines that one call site may write in the long run.
const LINES_PER_SECOND: u32 = 5;

const LEVELS: &str = "use off, error, warn, info, debug, trace, or module=level,…";

/// A level or filter that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: {filter}: {reason}; {LEVELS}")]
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
        .event_format(RateLimited::new(format().with_target(false)))
        .finish();
    // Only a second call fails, and then the first one's log is in place.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

/// Whether `level` can be understood.
pub fn check(level: &str) -> Result<(), String> {
    filter(Some(level), None).map(drop).map_err(|error| format!("{}; {LEVELS}", error.reason))
}

fn filter(level: Option<&str>, environment: Option<&str>) -> Result<EnvFilter, FilterError> {
    let (origin, text) = match (level, environment) {
        (Some(level), _) => ("--log-level", level),
        (None, Some(filter)) => ("RUST_LOG", filter),
        (None, None) => return Ok(EnvFilter::default().add_directive(LevelFilter::INFO.into())),
    };
    let refused = |reason: String| FilterError { origin, filter: text.to_owned(), reason };
    check_levels(text).map_err(refused)?;
    EnvFilter::builder().parse(text).map_err(|error| refused(error.to_string()))
}

/// Whether each part says a level: the filter's own syntax takes a word that is none for a module, and shows it alone.
fn check_levels(text: &str) -> Result<(), String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let levels = parts.map(|part| part.rsplit_once('=').map_or(part, |(_, level)| level));
    match levels.clone().find(|level| level.parse::<LevelFilter>().is_err()) {
        Some(other) => Err(format!("{other:?} is no level")),
        None if levels.count() == 0 => Err("no level is named".to_owned()),
        None => Ok(()),
    }
}

/// Writes events as `inner` does, as long as their call site does not write too many.
struct RateLimited {
    inner: Format<Full, SystemTime>,
    sites: Mutex<HashMap<Identifier, Allowance>>,
}

impl RateLimited {
    fn new(inner: Format<Full, SystemTime>) -> Self {
        RateLimited { inner, sites: Mutex::default() }
    }
}

impl<S, N> FormatEvent<S, N> for RateLimited
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let now = Instant::now();
        let site = event.metadata().callsite();
        let admitted = {
            let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
            sites.entry(site).or_insert_with(|| Allowance::new(now)).admit(now)
        };
        match admitted {
            None => return Ok(()),
            Some(0) => {}
            Some(left_out) => writeln!(writer, "({left_out} lines like the next one were left out)")?,
        }
        self.inner.format_event(context, writer, event)
    }
}

/// What one call site may still write: lines, refilled with time up to `BURST`.
#[derive(Debug)]
struct Allowance {
    lines: f64,
    refilled: Instant,
    left_out: u64,
}

impl Allowance {
    fn new(now: Instant) -> Allowance {
        Allowance { lines: f64::from(BURST), refilled: now, left_out: 0 }
    }

    /// Whether a line may be written at `now`; if so, how many before it were left out.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(self.refilled);
        self.refilled = now;
        self.lines = (self.lines + passed.as_secs_f64() * f64::from(LINES_PER_SECOND)).min(f64::from(BURST));
        if self.lines < 1.0 {
            self.left_out += 1;
            return None;
        }
        self.lines -= 1.0;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let start = Instant::now();
        let mut site = Allowance::new(start);
        assert!((0..BURST).all(|_| site.admit(start) == Some(0)));
        assert!((0..700).all(|_| site.admit(start).is_none()));
        let second = start + Duration::from_secs(1);
        assert_eq!(site.admit(second), Some(700));
        assert_eq!((1..LINES_PER_SECOND).filter_map(|_| site.admit(second)).sum::<u64>(), 0);
        assert_eq!(site.admit(second), None);
        assert!((0..BURST).all(|_| site.admit(start + Duration::from_secs(3600)).is_some()), "quiet sites recover");
    }

    /// Each site has an allowance of its own, and what is left out is told before the next line.
    #[test]
    fn lines_that_were_left_out_are_told() {
        #[derive(Clone, Default)]
        struct Lines(std::sync::Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().expect("one writer").extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let written = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || written.clone())
            .with_ansi(false)
            .event_format(RateLimited::new(format().with_target(false)))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..10 * BURST {
                tracing::warn!("flood {number}");
            }
            tracing::warn!("another site");
        });
        let text = String::from_utf8(lines.0.lock().expect("one writer").clone()).expect("text");
        let floods = text.matches("flood").count();
        assert!((BURST as usize..2 * BURST as usize).contains(&floods), "{floods}");
        assert!(text.trim_end().ends_with("another site"), "{text}");
    }

    #[test]
    fn the_command_line_comes_before_the_environment() {
        assert_eq!(filter(Some("debug"), Some("warn")).expect("a level").to_string(), "debug");
        assert_eq!(filter(None, Some("corelog=trace")).expect("a filter").to_string(), "corelog=trace");
        assert_eq!(filter(None, None).expect("the default").to_string(), "info");
        let error = filter(Some("=loud=="), None).expect_err("no level").to_string();
        assert!(error.starts_with("--log-level: =loud==:"), "{error}");
    }

    /// They were taken for modules, of which there are none: nothing was logged any more.
    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for bad in ["silly", "corelog::log=debug,foo", "corelog=loud", "", ","] {
            assert!(filter(Some(bad), None).is_err(), "{bad}");
        }
        for good in ["WARN", "off", "info,corelog::log=debug", "5"] {
            assert!(filter(Some(good), None).is_ok(), "{good}");
        }
    }
}

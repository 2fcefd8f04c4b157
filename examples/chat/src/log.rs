//! The log, on standard error.

use tracing::warn;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// The default filter. When the database is unavailable, the driver would log each connection, and the store logs it once.
const DEFAULT: &str = "info,sqlx=warn,sqlx::postgres::notice=off,sqlx_core::pool=error,actix_server=warn";

/// Begins the log. `RUST_LOG` says what is logged; if it is not set, is empty or cannot be read, that is the default.
pub(crate) fn begin() {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = filter(&wanted);
    let is_readable = filter.is_some();
    let filter = filter.unwrap_or_else(|| DEFAULT.parse().unwrap_or_default());
    tracing_subscriber::registry().with(filter).with(fmt::layer().with_writer(std::io::stderr)).init();
    if !is_readable {
        warn!(RUST_LOG = wanted, "this is no list of levels, such as `info,presence=debug`; the default is used");
    }
}

/// Reads a list of levels, each for a target or for all; `None` if it is not one. `EnvFilter` could also filter by spans, of which there are
/// none here, but the regular expressions that it needs would be a megabyte of this program.
fn filter(wanted: &str) -> Option<Targets> {
    let parts: Vec<_> = wanted.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return DEFAULT.parse().ok();
    }
    // What is no name of a module would be read as a target that matches nothing, and nothing would be logged.
    let is_name = |name: &str| name.chars().all(|char| char.is_alphanumeric() || "_:-".contains(char));
    let is_part = |part: &str| part.split('=').all(|name| !name.is_empty() && is_name(name));
    if parts.iter().all(|part| is_part(part)) { parts.join(",").parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn the_default_filter_leaves_out_what_the_store_logs_itself() {
        for not_set in ["", " ", ","] {
            let filter = filter(not_set).expect("the default");
            assert!(filter.would_enable("chat", &Level::INFO) && filter.would_enable("presence::node", &Level::INFO));
            assert!(!filter.would_enable("presence::node", &Level::DEBUG));
            for (target, most) in [("sqlx::query", Level::WARN), ("sqlx_core::pool::inner", Level::ERROR)] {
                assert!(filter.would_enable(target, &most), "{target}");
                assert!(!filter.would_enable(target, &Level::INFO), "{target}");
            }
            assert!(!filter.would_enable("sqlx::postgres::notice", &Level::ERROR));
        }
    }

    #[test]
    fn spaces_and_empty_parts_of_a_filter_mean_nothing() {
        for list in ["info,presence=debug", " info , presence=debug", "info,,presence=debug,", ",info,presence=debug"] {
            let filter = filter(list).expect("a list");
            assert!(filter.would_enable("presence::node", &Level::DEBUG), "{list}");
            assert!(filter.would_enable("chat", &Level::INFO) && !filter.would_enable("chat", &Level::DEBUG), "{list}");
        }
        assert!(!filter("off").expect("a level").would_enable("chat", &Level::ERROR));
    }

    #[test]
    fn what_is_no_list_of_levels_is_refused_and_not_read_as_a_target() {
        for wrong in
            ["\"info\"", "${LEVEL}", "*", "*=debug", "presence=", "=info", "presence=loud", "[span]=debug", "a b"]
        {
            assert!(filter(wrong).is_none(), "{wrong}");
        }
    }
}

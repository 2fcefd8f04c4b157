//! The command line.

use std::{net::SocketAddr, num::NonZeroUsize, time::Duration};

use clap::Parser;
use presence::{Config, ConfigError, NameError, NodeName, Notify, Origin, OriginError};

/// A chat that shows who is here.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Each other setting has an environment variable: PRESENCE_ and its name in capitals, such as \
                  PRESENCE_PING_INTERVAL=5s. No file is read."
)]
pub(crate) struct Args {
    /// Port to listen on; 0 picks a free one.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    pub(crate) port: u16,
    /// Address to listen on.
    #[arg(long, env = "BIND", default_value = "127.0.0.1")]
    pub(crate) bind: String,
    /// Where rooms and presences are kept: `sqlite:`, or `postgres:` and `mysql:` if built with the feature.
    #[arg(long, env = "DATABASE_URL", default_value = "sqlite://presence.db?mode=rwc")]
    pub(crate) database_url: String,
    /// Which notices members receive: `list`, `events`, `diff` or `silent` [default: diff].
    #[arg(long, env = "NOTIFY")]
    notify: Option<Notify>,
    /// A socket that sends nothing for longer than this is closed and leaves.
    #[arg(long, env = "PRESENCE_MAX_AGE", value_parser = humantime::parse_duration, default_value = "60s")]
    pub(crate) max_age: Duration,
    /// How long the presence of a lost socket is held until its client returns with the resume token; 0 for none [default: 10s, or
    /// max-age if shorter].
    #[arg(long, env = "PRESENCE_GRACE", value_parser = duration)]
    pub(crate) grace: Option<Duration>,
    /// The largest frame that the server sends, in bytes, at least 6000; larger states and diffs come in parts, and a text whose
    /// message would be larger is refused [env: PRESENCE_MAX_FRAME_SENT=] [default: 32000].
    #[arg(long)]
    pub(crate) max_frame_sent: Option<usize>,
    /// Threads that serve sockets [default: one per core].
    #[arg(long, env = "WORKERS")]
    pub(crate) workers: Option<NonZeroUsize>,
    /// The name of this server among those that share its database [default: HOST:PORT].
    #[arg(long, env = "NODE_NAME")]
    pub(crate) node_name: Option<String>,
    /// Other origins whose pages may connect, separated by commas; `*` for all.
    #[arg(long, env = "ALLOW_ORIGIN", value_delimiter = ',', value_parser = origin)]
    allow_origin: Vec<Option<Origin>>,
}

/// A duration; a bare `0` needs no unit.
fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    if text == "0" { Ok(Duration::ZERO) } else { humantime::parse_duration(text) }
}

/// One origin of the list; `None` if there is nothing between two commas.
fn origin(text: &str) -> Result<Option<Origin>, OriginError> {
    let text = text.trim();
    if text.is_empty() { Ok(None) } else { Origin::new(text).map(Some) }
}

impl Args {
    pub(crate) fn config(&self) -> Result<Config, ConfigError> {
        // SocketSettings without a flag are read from the environment, such as `PRESENCE_PING_INTERVAL=5s`.
        let mut config = Config::builder().overlay_env()?.max_age(self.max_age);
        if let Some(notify) = self.notify {
            config = config.notify(notify);
        }
        if let Some(grace) = self.grace {
            config = config.grace(grace);
        }
        if let Some(bytes) = self.max_frame_sent {
            config = config.max_frame_sent(bytes);
        }
        config.build()
    }

    pub(crate) fn allow_origin(&self) -> Vec<Origin> {
        self.allow_origin.iter().flatten().cloned().collect()
    }

    pub(crate) fn node_name(&self, address: SocketAddr) -> Result<NodeName, NameError> {
        match &self.node_name {
            Some(name) => NodeName::new(name),
            None => NodeName::of_host(address.port()),
        }
    }
}

//! The settings, with their defaults and limits. The list of settings makes this file long.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{descriptors::sockets_within_limit, model::rate::Rate};

use self::raw::{RawSetting, read};

mod raw;
mod touches;

pub(crate) use self::touches::{gather_time, unwritten};

/// The prefix of environment variables that are settings.
const PREFIX: &str = "PRESENCE_";

/// The lowest value of `max_frame_sent`, in bytes. A frame of this size has space for one presence with the longest user id and the largest
/// meta, in a room with the longest name.
pub const LEAST_FRAME_SENT: usize = 6_000;

/// The burst of a rate limit, in seconds of the rate.
const BURST_SECONDS: usize = 5;

/// The highest rate of one socket. A higher one would be no limit, for which the value is 0.
const MAX_PER_SECOND: usize = 1_000_000;

/// The largest request head that actix-web reads, in bytes. It refuses a larger one by itself.
const ACTIX_MAX_HEAD_BYTES: usize = 131_072;

/// A setting with an invalid value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting `{field}` is {value}, but {rule}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The setting.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// The rule that the value violates.
    pub rule: &'static str,
}

/// Which notices the members of a room receive, as JSON in text frames. `docs/wire.md` has the formats.
///
/// ```
/// use presence::Notify;
///
/// assert_eq!("list".parse::<Notify>()?, Notify::List); // as from a command line
/// assert_eq!(Notify::Diff.to_string(), "diff");
/// # Ok::<(), presence::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Notify {
    /// The whole list of users with every change, as in the documentation of django-channels-presence.
    List,
    /// One frame when a user goes online, and one when the user goes offline.
    Events,
    /// The whole state for a new member, and then the changes, with versions.
    #[default]
    Diff,
    /// No notices.
    Silent,
}

/// What happens to a socket whose presence is stale.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStale {
    /// The socket is closed with 4408.
    #[default]
    Close,
    /// The socket stays open and leaves the room. [`Consumer::removed`](crate::Consumer::removed) is called, and it may join again.
    Keep,
}

/// When `join`, `leave` and `update` resolve.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When the database has committed the change.
    #[default]
    Committed,
    /// At once. The change is written later, and notices still wait for the commit. A crash before it loses the change, and if the database
    /// refuses the change, the caller receives no error.
    Relaxed,
}

macro_rules! config {
    ($($(#[$doc:meta])* $field:ident: $type:ty = $default:expr;)*) => {
        /// The settings of one node. They come from a [`builder`](Self::builder), from a file through `serde`, or from
        /// [the environment](Self::from_env), and are always validated together.
        ///
        /// In files and in the environment, times are texts with a unit (`30s`), and choices are names in lower case. A setting that is
        /// missing has its default.
        ///
        /// ```
        /// use std::time::Duration;
        /// use presence::Config;
        ///
        /// let built = Config::builder().max_age(Duration::from_secs(30)).build()?;
        /// let read: Config = serde_json::from_str(r#"{"max_age": "30s"}"#)?;
        /// assert_eq!(built, read);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(try_from = "ConfigBuilder")]
        pub struct Config { $($field: $type,)* }

        /// The names of all settings.
        const SETTINGS: &[&str] = &[$(stringify!($field)),*];

        impl Config {
            $($(#[$doc])* #[must_use] pub const fn $field(&self) -> $type { self.$field })*
        }

        /// Builds a [`Config`].
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
        #[serde(try_from = "Draft")]
        #[must_use]
        pub struct ConfigBuilder { $($field: Option<$type>,)* }

        #[derive(Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct Draft { $($field: Option<RawSetting>,)* }

        impl TryFrom<Draft> for ConfigBuilder {
            type Error = ConfigError;

            fn try_from(draft: Draft) -> Result<Self, ConfigError> {
                let mut builder = Self::default();
                $(if let Some(RawSetting(text)) = draft.$field {
                    builder.$field = Some(read(stringify!($field), &text)?);
                })*
                Ok(builder)
            }
        }

        impl ConfigBuilder {
            $($(#[$doc])* pub const fn $field(mut self, $field: $type) -> Self { self.$field = Some($field); self })*

            /// Sets each setting for which `lookup` returns a value. The names are like `PRESENCE_MAX_AGE`: `PRESENCE_` and the setting in
            /// capitals.
            ///
            /// ```
            /// use std::{collections::HashMap, time::Duration};
            /// use presence::Config;
            ///
            /// let variables = HashMap::from([("PRESENCE_MAX_AGE", "30s")]);
            /// let config = Config::builder().overlay(|name| variables.get(name).map(|text| (*text).to_owned()))?.build()?;
            /// assert_eq!(config.max_age(), Duration::from_secs(30));
            /// # Ok::<(), presence::ConfigError>(())
            /// ```
            ///
            /// # Errors
            /// [`ConfigError`] with the first setting that cannot be parsed.
            pub fn overlay(mut self, lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
                $({
                    let name = format!("{PREFIX}{}", stringify!($field).to_ascii_uppercase());
                    if let Some(text) = lookup(&name) {
                        self.$field = Some(read(stringify!($field), &text)?);
                    }
                })*
                Ok(self)
            }

            /// Sets each setting that the environment has. A variable that begins with `PRESENCE_` and names no setting is logged, and is no
            /// error, since it may belong to another program.
            ///
            /// # Errors
            /// As [`overlay`](Self::overlay).
            pub fn overlay_env(self) -> Result<Self, ConfigError> {
                // A variable that is not UTF-8 is included, so that the error names it.
                let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
                for variable in unknown(names) {
                    warn!(variable, "no setting has this name; the variable is ignored");
                }
                self.overlay(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
            }

            /// Fills in the defaults and validates the settings.
            ///
            /// ```
            /// use std::time::Duration;
            /// use presence::{Config, Durability, Notify};
            ///
            /// let config = Config::builder().notify(Notify::List).durability(Durability::Relaxed).build()?;
            /// assert_eq!(config.max_age(), Duration::from_secs(60)); // the default
            /// assert!(Config::builder().max_age(Duration::ZERO).build().is_err());
            /// # Ok::<(), presence::ConfigError>(())
            /// ```
            ///
            /// # Errors
            /// [`ConfigError`] with the first invalid setting.
            pub fn build(self) -> Result<Config, ConfigError> {
                let max_age = self.max_age.unwrap_or(Duration::from_secs(60));
                $(let $field = { let default: fn(Duration) -> $type = $default; self.$field.unwrap_or_else(|| default(max_age)) };)*
                let config = Config { $($field,)* };
                config.validate()?;
                Ok(config)
            }
        }
    };
}

/// The variables with the prefix of settings that name no setting.
fn unknown(names: impl Iterator<Item = String>) -> impl Iterator<Item = String> {
    let is_setting = |name: &str| SETTINGS.iter().any(|setting| setting.to_ascii_uppercase() == name);
    names.filter(move |name| name.strip_prefix(PREFIX).is_some_and(|rest| !is_setting(rest)))
}

impl TryFrom<ConfigBuilder> for Config {
    type Error = ConfigError;

    fn try_from(builder: ConfigBuilder) -> Result<Self, ConfigError> {
        builder.build()
    }
}

/// With longer intervals the times in the database would say nothing to an operator.
const MAX_TOUCH_FLUSH_INTERVAL: Duration = secs(600);

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

config! {
    /// A presence that was not touched for longer than this is stale, and leaves. Default 60 s, at least 100 ms, at most 365 days.
    max_age: Duration = |max_age| max_age;
    /// How often the row of a presence is updated with the time of the last touch. Default a quarter of `max_age`. At most that, or 10 min if
    /// that is longer. Deadlines do not depend on it, since each node keeps those of its own presences in memory. Other nodes prune what a dead
    /// node left by these times, so they wait longer if the interval is longer than a quarter of `max_age`; give all nodes the same.
    touch_flush_interval: Duration = |max_age| max_age / 4;
    /// How long a presence is held after its socket or node was lost, in case its client returns. Default 10 s, or `max_age` if that is
    /// shorter; 0 for no time; at most `max_age`.
    grace: Duration = |max_age| max_age.min(secs(10));
    /// The longest time between two notices to the members of a busy room. Default 100 ms; with 0 each change is sent at
    /// once; at most 10 s.
    notify_interval: Duration = |_| Duration::from_millis(100);
    /// Which notices members receive. Default [`Notify::Diff`].
    notify: Notify = |_| Notify::Diff;
    /// What happens to a stale socket. Default [`OnStale::Close`].
    on_stale: OnStale = |_| OnStale::Close;
    /// When `join`, `leave` and `update` resolve. Default [`Durability::Committed`].
    durability: Durability = |_| Durability::Committed;
    /// How long other nodes consider a node alive after it renewed its lease. Default 10 s, at least 1.2 s, at most a day. It is renewed
    /// after each third, and a node that cleans up after others waits a sixth of it for their locks.
    lease: Duration = |_| secs(10);
    /// Time between sweeps, which remove held presences whose grace has expired and presences of dead nodes. Default 2 s.
    sweep_interval: Duration = |_| secs(2);
    /// Time between rounds of [`prune_presences`](crate::Rooms::prune_presences), which is a safety net; the name is that of
    /// django-channels-presence. Default 60 s.
    prune_interval: Duration = |_| secs(60);
    /// Time between rounds of [`prune_rooms`](crate::Rooms::prune_rooms). Default 600 s.
    prune_rooms_interval: Duration = |_| secs(600);
    /// Time between comparisons of the rooms in memory with the database. Default 5 s.
    reconcile_interval: Duration = |_| secs(5);
    /// How long a change that arrives before its predecessor waits for it. Then the room is loaded again. Default 200 ms.
    hold_window: Duration = |_| Duration::from_millis(200);
    /// How long a join or update waits for the database. Default 5 s. It should be shorter than `handshake_timeout`: otherwise a socket that
    /// cannot join is answered 500 instead of 503.
    store_timeout: Duration = |_| secs(5);
    /// How many transactions of this node a database server executes at once, each in a lane of its own. Default 4 lanes, at least 1, at most
    /// 16. With more than one lane, a room whose lock another transaction keeps is set aside in one lane more, so that other rooms go on.
    /// Each lane has a connection. SQLite and [`MemoryStore`](crate::MemoryStore) have one lane.
    store_lanes: usize = |_| 4;
    /// Time between pings to a silent client. Default 20 s.
    ping_interval: Duration = |_| secs(20);
    /// How long after a ping was written to the socket the client may send nothing. Default 10 s.
    pong_timeout: Duration = |_| secs(10);
    /// How long a client may read nothing of what waits for it. Default 10 s. A client that reads 8 KiB in each such time and answers pings
    /// in time receives everything, however long a frame takes. A client that reads less than half as much on average is cut off.
    write_timeout: Duration = |_| secs(10);
    /// How long a client may take to answer a Close after it was written to the socket, or may read nothing of what waits before the Close.
    /// Default 5 s. The socket leaves its rooms within this time in any case.
    close_timeout: Duration = |_| secs(5);
    /// How long the consumer's `connect` may take, and then how long the client may take to read the answer. Default 10 s.
    handshake_timeout: Duration = |_| secs(10);
    /// How long any other method of a consumer may take. Default 30 s.
    handler_timeout: Duration = |_| secs(30);
    /// How many bytes the headers of a handshake may have: names, values and four bytes for each. Larger ones are answered 431. Default
    /// 16 KiB. The HTTP server keeps the memory for these headers as long as the socket is open.
    max_header_bytes: usize = |_| 16 * 1024;
    /// The largest frame a client may send, in bytes of payload. Default 64 KiB.
    max_frame_bytes: usize = |_| 64 * 1024;
    /// The largest message a client may send in several frames, in bytes. Default 256 KiB; at least `max_frame_bytes`.
    max_message_bytes: usize = |_| 256 * 1024;
    /// The largest notice that is sent in one frame, in bytes of payload. A larger state or diff is sent in parts. Messages of an
    /// application are not split; [`Rooms::check_size`](crate::Rooms::check_size) checks them against this limit. Default 32,000, which all
    /// clients accept by default; at least [`LEAST_FRAME_SENT`].
    max_frame_sent: usize = |_| 32_000;
    /// How many bytes of first frames may wait unread in one room, besides those of a new member. A page that several members wait for counts
    /// once. Beyond this limit, joins are refused with [`FirstFramesUnread`](crate::Error::FirstFramesUnread); joins that resume a presence
    /// of this node are refused beyond twice the limit. Default 32 MiB.
    first_frames_room_bytes: usize = |_| 32 * 1024 * 1024;
    /// How many bytes of first frames may wait unread in all rooms of the process. Beyond this limit, only small rooms accept joins, in which
    /// at most 1/1,024 of it would wait, and all rooms accept joins that resume a presence, up to twice the limit. Default 128 MiB.
    first_frames_bytes: usize = |_| 128 * 1024 * 1024;
    /// How many frames may wait for one client before it is slow. Default 256.
    outbox_frames: usize = |_| 256;
    /// How many bytes may wait for one client before it is slow, without first frames. Default 1 MiB.
    outbox_bytes: usize = |_| 1024 * 1024;
    /// How many bytes may wait in all, beyond `outbox_frames` and `outbox_bytes`, for clients that read nothing for a moment, so that
    /// senders do not wait for them. Default 64 MiB.
    paused_bytes: usize = |_| 64 * 1024 * 1024;
    /// How much longer all senders together wait for one client than for a steady reader: this long at once, and this long again in each
    /// minute. Then the client is closed with 1013, and held if it can be resumed. Default 1 s.
    send_patience: Duration = |_| secs(1);
    /// A client that reads this many bytes a second is a steady reader, whatever its rooms send. Senders that exceed what steady readers read
    /// are slowed down. Default 256 KiB.
    steady_rate: usize = |_| 256 * 1024;
    /// How many frames of one client may wait for its consumer before its connection is no longer read. Default 16.
    inbox_frames: usize = |_| 16;
    /// How many messages a second one client may send, including heartbeats. Default 100, and five times as many in a burst; 0 for no limit.
    /// Beyond it the client is slowed down, and after `rate_patience` it is closed with 1008.
    messages_per_second: usize = |_| 100;
    /// How many updates a second are written for one socket, in all its rooms. Default 5, and five times as many in a burst, or
    /// `max_rooms_per_socket` if that is more; 0 for no limit. Faster updates of one presence are merged into the last.
    updates_per_second: usize = |_| 5;
    /// How many joins a second one socket may request. Default 10, and five times as many in a burst, or `max_rooms_per_socket` if that is
    /// more; 0 for no limit. Beyond it a join waits, and after `rate_patience` the client is closed with 1008.
    joins_per_second: usize = |_| 10;
    /// How long a client may be slowed down in total, without leaving one second of its rate unused, before it is closed with 1008. Each
    /// second of its rate that it left unused before adds 10 s, up to twenty times this setting. Default 30 s.
    rate_patience: Duration = |_| secs(30);
    /// How many rooms one socket may be in at a time. Default 100.
    max_rooms_per_socket: usize = |_| 100;
    /// How many sockets this node serves at a time. Further ones are answered 503. The default depends on the limit of open files when the
    /// settings are built: each socket takes two ([`raise_open_files`](crate::raise_open_files)).
    max_sockets: usize = |_| sockets_within_limit();
    /// How many changes may wait for the database before joins and updates are refused. Default 100,000.
    max_pending_writes: usize = |_| 100_000;
    /// How many threads run rooms. Default 1. With 0 they run on the thread that starts them, for tests.
    room_threads: usize = |_| 1;
}

impl Default for Config {
    fn default() -> Self {
        Self::builder().build().expect("the defaults are valid")
    }
}

impl Config {
    /// Starts from the defaults.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// The defaults with the settings of the environment, such as `PRESENCE_MAX_AGE=30s` or `PRESENCE_NOTIFY=list`. See
    /// [`ConfigBuilder::overlay_env`].
    ///
    /// # Errors
    /// [`ConfigError`] with the first setting that cannot be parsed or is invalid.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::builder().overlay_env()?.build()
    }

    /// The rate of messages of one client.
    pub(crate) fn message_rate(&self) -> Rate {
        Rate::new(self.messages_per_second, self.messages_per_second.saturating_mul(BURST_SECONDS))
    }

    /// The rate of updates of one socket.
    pub(crate) fn update_rate(&self) -> Rate {
        self.rate_of_rooms(self.updates_per_second)
    }

    /// The rate of joins of one socket.
    pub(crate) fn join_rate(&self) -> Rate {
        self.rate_of_rooms(self.joins_per_second)
    }

    /// The burst is at least the number of rooms, since a client may join or update all its rooms at once.
    fn rate_of_rooms(&self, per_second: usize) -> Rate {
        Rate::new(per_second, per_second.saturating_mul(BURST_SECONDS).max(self.max_rooms_per_socket))
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let time = |field, value: Duration, is_valid: bool, rule| {
            let value = humantime::format_duration(value).to_string();
            if is_valid { Ok(()) } else { Err(ConfigError { field, value, rule }) }
        };
        let count = |field, value: usize, is_valid: bool, rule| {
            if is_valid { Ok(()) } else { Err(ConfigError { field, value: value.to_string(), rule }) }
        };
        let ms = Duration::from_millis;
        time("max_age", self.max_age, self.max_age >= ms(100), "it must be at least 100 ms")?;
        // A longer age, added to a time of the database, could overflow.
        time("max_age", self.max_age, self.max_age <= secs(365 * 24 * 3600), "it must be at most 365 days")?;
        let flush = self.touch_flush_interval;
        time("touch_flush_interval", flush, flush >= ms(10), "it must be at least 10 ms")?;
        let longest = MAX_TOUCH_FLUSH_INTERVAL.max(self.max_age / 4);
        let rule = "it must be at most 10 min, or a quarter of `max_age` if that is longer";
        time("touch_flush_interval", flush, flush <= longest, rule)?;
        time("grace", self.grace, self.grace <= self.max_age, "it must not be longer than `max_age`")?;
        let notify = self.notify_interval;
        time("notify_interval", notify, notify <= secs(10), "it must be at most 10 s")?;
        let long_enough = "it must be at least 1.2 s: a node that cleans up waits for a sixth of it, and other nodes keep locks for up to 0.2 s";
        time("lease", self.lease, self.lease >= ms(1200), long_enough)?;
        time("lease", self.lease, self.lease <= secs(24 * 3600), "it must be at most a day")?;
        for (field, value) in [
            ("sweep_interval", self.sweep_interval),
            ("prune_interval", self.prune_interval),
            ("prune_rooms_interval", self.prune_rooms_interval),
            ("reconcile_interval", self.reconcile_interval),
            ("hold_window", self.hold_window),
            ("store_timeout", self.store_timeout),
            ("ping_interval", self.ping_interval),
            ("pong_timeout", self.pong_timeout),
            ("write_timeout", self.write_timeout),
            ("send_patience", self.send_patience),
            ("close_timeout", self.close_timeout),
            ("handshake_timeout", self.handshake_timeout),
            ("handler_timeout", self.handler_timeout),
            ("rate_patience", self.rate_patience),
        ] {
            time(field, value, value >= ms(10), "it must be at least 10 ms")?;
            time(field, value, value <= secs(24 * 3600), "it must be at most a day")?;
        }
        for (field, value) in [
            ("max_header_bytes", self.max_header_bytes),
            ("max_frame_bytes", self.max_frame_bytes),
            ("outbox_frames", self.outbox_frames),
            ("outbox_bytes", self.outbox_bytes),
            ("paused_bytes", self.paused_bytes),
            ("steady_rate", self.steady_rate),
            ("first_frames_room_bytes", self.first_frames_room_bytes),
            ("first_frames_bytes", self.first_frames_bytes),
            ("inbox_frames", self.inbox_frames),
            ("max_sockets", self.max_sockets),
            ("max_rooms_per_socket", self.max_rooms_per_socket),
            ("max_pending_writes", self.max_pending_writes),
        ] {
            count(field, value, value > 0, "it must not be 0")?;
        }
        let sent = self.max_frame_sent;
        count("max_frame_sent", sent, sent >= LEAST_FRAME_SENT, "it must be at least 6000 bytes")?;
        for (field, value) in [
            ("messages_per_second", self.messages_per_second),
            ("updates_per_second", self.updates_per_second),
            ("joins_per_second", self.joins_per_second),
        ] {
            count(field, value, value <= MAX_PER_SECOND, "it must be at most 1,000,000")?;
        }
        let message = self.max_message_bytes;
        count("max_message_bytes", message, message >= self.max_frame_bytes, "it must be at least `max_frame_bytes`")?;
        let headers = self.max_header_bytes;
        count(
            "max_header_bytes",
            headers,
            headers <= ACTIX_MAX_HEAD_BYTES,
            "it must be at most 131,072, which the HTTP server reads",
        )?;
        let lanes = self.store_lanes;
        count("store_lanes", lanes, (1..=16).contains(&lanes), "it must be between 1 and 16")?;
        count("room_threads", self.room_threads, self.room_threads <= 64, "it must be at most 64")
    }
}

#[cfg(test)]
mod tests;

//! What can be tuned, with its defaults and its bounds.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{descriptors::sockets_within_limit, model::rate::Rate};

use self::written::{Written, read};

mod written;

/// How the names begin of variables that are settings.
const PREFIX: &str = "PRESENCE_";

/// The least value of `max_frame_sent`, in bytes: one presence with the longest user id and the largest meta fits, in the room
/// with the longest name.
pub const LEAST_FRAME_SENT: usize = 6_000;

/// What may be done at once that is limited in rate: what may be done in so many seconds.
const BURST: usize = 5;

/// The highest rate of one socket; more is no limit, for which there is 0.
const MAX_PER_SECOND: usize = 1_000_000;

/// How large a head of a request actix-web reads at most; it answers a larger one by itself.
const HEAD_BYTES_OF_ACTIX: usize = 131_072;

/// A setting that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting `{field}` is {value}, but {rule}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The setting.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

/// What members are told of changes in their room, as JSON in text frames. The shapes are in `docs/wire.md`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Notify {
    /// The whole list of users on every change, as the receiver in the documentation of django-channels-presence does.
    List,
    /// One frame when a user's first presence arrives and one when its last goes.
    Events,
    /// The whole state to the one who joins, and from then on what changed, by version.
    #[default]
    Diff,
    /// Nothing.
    Silent,
}

/// What happens to a socket whose presence went stale.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStale {
    /// It is closed with 4408.
    #[default]
    Close,
    /// It stays open, outside of the room, and [`Consumer::removed`](crate::Consumer::removed) is called; it may join again.
    Keep,
}

/// When `join`, `leave` and `update` resolve.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When the database has committed the change.
    #[default]
    Committed,
    /// At once. The change follows; notices still wait for the commit. A crash in between loses it, and a change that the
    /// database refuses is not reported to the caller.
    Relaxed,
}

macro_rules! config {
    ($($(#[$doc:meta])* $field:ident: $type:ty = $default:expr;)*) => {
        /// The settings of one node. All are checked against one another, whichever door they come in by: a
        /// [`builder`](Self::builder), a file by `serde`, or [the environment](Self::from_env).
        ///
        /// In files and in the environment, times are texts with their units (`30s`), choices their names in lower case, and
        /// what is not there has its default.
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

        /// Makes a [`Config`].
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
        #[serde(try_from = "Draft")]
        #[must_use]
        pub struct ConfigBuilder { $($field: Option<$type>,)* }

        #[derive(Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct Draft { $($field: Option<Written>,)* }

        impl TryFrom<Draft> for ConfigBuilder {
            type Error = ConfigError;

            fn try_from(draft: Draft) -> Result<Self, ConfigError> {
                let mut builder = Self::default();
                $(if let Some(Written(text)) = draft.$field {
                    builder.$field = Some(read(stringify!($field), &text)?);
                })*
                Ok(builder)
            }
        }

        impl ConfigBuilder {
            $($(#[$doc])* pub const fn $field(mut self, $field: $type) -> Self { self.$field = Some($field); self })*

            /// Takes what `lookup` knows under `PRESENCE_MAX_AGE` and the like: `PRESENCE_` and the setting in capitals.
            ///
            /// # Errors
            /// [`ConfigError`] names the first setting that cannot be read, its value and the rule.
            pub fn overlay(mut self, lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
                $({
                    let name = format!("{PREFIX}{}", stringify!($field).to_ascii_uppercase());
                    if let Some(text) = lookup(&name) {
                        self.$field = Some(read(stringify!($field), &text)?);
                    }
                })*
                Ok(self)
            }

            /// Takes what the environment says. A variable that begins with `PRESENCE_` and names no setting is a line in the log,
            /// and no error: it may be another's.
            ///
            /// # Errors
            /// As [`overlay`](Self::overlay).
            pub fn overlay_env(self) -> Result<Self, ConfigError> {
                // One that is no text is looked at too, and refused by its name.
                let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
                for variable in unknown(names) {
                    warn!(variable, "no setting has this name; it is passed over");
                }
                self.overlay(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
            }

            /// Fills in the defaults and checks the settings against one another.
            ///
            /// # Errors
            /// [`ConfigError`] names the first setting that does not hold, its value and the rule.
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

/// Those of these variables that look like settings, and are none.
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

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

config! {
    /// A presence that was not touched for longer than this is stale: it leaves. Default 60 s, at least 100 ms, at most 365 days.
    max_age: Duration = |max_age| max_age;
    /// How often at most a presence's row learns when it was last seen. Default a quarter of `max_age`, and at most that
    /// much.
    touch_flush_interval: Duration = |max_age| max_age / 4;
    /// How long a presence whose socket, or node, was lost is kept in case its client returns. Default 10 s, or `max_age` if that is
    /// shorter; 0 for none; at most `max_age`.
    grace: Duration = |max_age| max_age.min(secs(10));
    /// The longest time between two notices to the members of a busy room. Default 100 ms; 0 tells each change at once;
    /// at most 10 s.
    notify_interval: Duration = |_| Duration::from_millis(100);
    /// What members are told. Default [`Notify::Diff`].
    notify: Notify = |_| Notify::Diff;
    /// What happens to a stale socket. Default [`OnStale::Close`].
    on_stale: OnStale = |_| OnStale::Close;
    /// When `join`, `leave` and `update` resolve. Default [`Durability::Committed`].
    durability: Durability = |_| Durability::Committed;
    /// For how long a node is believed to live after it last said so. Default 10 s, at least 300 ms, at most a day; renewed three
    /// times within it.
    lease: Duration = |_| secs(10);
    /// Time between sweeps for presences whose grace is over and for dead nodes. Default 2 s.
    sweep_interval: Duration = |_| secs(2);
    /// Time between rounds of [`prune_presences`](crate::Rooms::prune_presences), the safety net under the ancestor's name.
    /// Default 60 s.
    prune_interval: Duration = |_| secs(60);
    /// Time between rounds of [`prune_rooms`](crate::Rooms::prune_rooms). Default 600 s.
    prune_rooms_interval: Duration = |_| secs(600);
    /// Time between comparisons of the rooms in memory with the database. Default 5 s.
    reconcile_interval: Duration = |_| secs(5);
    /// How long a change that arrived before its predecessor waits for it, until the room is read anew. Default 200 ms.
    hold_window: Duration = |_| Duration::from_millis(200);
    /// How long a join or update waits for the database. Default 5 s. It should be shorter than `handshake_timeout`: else a
    /// socket that cannot join is answered 500 instead of 503.
    store_timeout: Duration = |_| secs(5);
    /// Time between pings to a silent client. Default 20 s.
    ping_interval: Duration = |_| secs(20);
    /// How long a ping may go without any byte from the client, from when it was written to the socket. Default 10 s.
    pong_timeout: Duration = |_| secs(10);
    /// How long a client may take nothing of what waits for it. Default 10 s. However long a whole frame takes, a client that takes
    /// 8 KiB in each such time, and answers pings in time, gets all of it; one that takes less than half as much on average is cut off.
    write_timeout: Duration = |_| secs(10);
    /// How long a client may take to answer a Close, from when it was written to the socket, or may take nothing of what waits before
    /// it. Default 5 s. Rooms are left within it in any case.
    close_timeout: Duration = |_| secs(5);
    /// How long a consumer's `connect` may take, and then the client to fetch the answer. Default 10 s.
    handshake_timeout: Duration = |_| secs(10);
    /// How long any other method of a consumer may take. Default 30 s.
    handler_timeout: Duration = |_| secs(30);
    /// How many bytes the headers of a handshake may have, names and values and four for each; more are answered 431. Default 16 KiB.
    /// The HTTP server keeps the memory that it read them into for as long as the socket is open.
    max_header_bytes: usize = |_| 16 * 1024;
    /// The largest frame a client may send, in bytes of payload. Default 64 KiB.
    max_frame_bytes: usize = |_| 64 * 1024;
    /// The largest message a client may send in several frames, in bytes. Default 256 KiB; at least `max_frame_bytes`.
    max_message_bytes: usize = |_| 256 * 1024;
    /// The largest frame that presence composes for a client, in bytes of payload: a state or a diff that is larger is sent in
    /// parts. Messages of an application are sent as they are; [`Rooms::check_size`](crate::Rooms::check_size) compares them with it.
    /// Default 32,000, which every client's default takes; at least [`LEAST_FRAME_SENT`].
    max_frame_sent: usize = |_| 32_000;
    /// How many bytes of first frames may wait unread in one room, besides those that one who joins would get now; what several wait
    /// for counts once. Beyond it joins are refused with [`FirstFramesUnread`](crate::Error::FirstFramesUnread), those of who comes back
    /// with the token of a presence that is here beyond twice as many. Default 32 MiB.
    first_frames_room_bytes: usize = |_| 32 * 1024 * 1024;
    /// How many bytes of first frames may wait unread in all rooms of the process. Beyond it only small rooms are open, in which no more
    /// than a 1,024th part of it would wait, and all rooms to who comes back, until they have made it twice as much. Default 128 MiB.
    first_frames_bytes: usize = |_| 128 * 1024 * 1024;
    /// How many frames may wait for one client before it counts as slow. Default 256.
    outbox_frames: usize = |_| 256;
    /// How many bytes may wait for one client before it counts as slow; first frames do not count. Default 1 MiB.
    outbox_bytes: usize = |_| 1024 * 1024;
    /// How long those who send, all of them together, may wait for one client longer than for one that takes `steady_rate`: so long at
    /// once, and so long again in each minute. Then it is closed with 1013, and held if it can be resumed. Default 1 s.
    send_patience: Duration = |_| secs(1);
    /// How many bytes a second a client takes that is no slow reader, whatever its rooms say: who sends more than that is slowed to
    /// what it takes. Default 256 KiB.
    steady_rate: usize = |_| 256 * 1024;
    /// How many frames of one client may wait for its consumer before its connection is no longer read. Default 16.
    inbox_frames: usize = |_| 16;
    /// How many messages a second one client may send, texts and binary ones, heartbeats too. Default 100, after five times as many at
    /// once; 0 for no limit. Beyond it the client is not read for a while, and beyond `rate_patience` it is closed with 1008.
    messages_per_second: usize = |_| 100;
    /// How many updates of its presences one socket may have written a second, in all its rooms. Default 5, after five times as many at
    /// once, or `max_rooms_per_socket` if that is more; 0 for no limit. Those of one presence that come faster are merged to the last.
    updates_per_second: usize = |_| 5;
    /// How many joins a second one socket may ask for. Default 10, after five times as many at once, or `max_rooms_per_socket` if that
    /// is more; 0 for no limit. Beyond it a join waits, and beyond `rate_patience` the client is closed with 1008.
    joins_per_second: usize = |_| 10;
    /// How long in all a client may be slowed down, without a second of rest, before it is closed with 1008. For each second of its rate
    /// that it had left unused before, ten more, at most twenty times this. Default 30 s.
    rate_patience: Duration = |_| secs(30);
    /// How many rooms one socket may be in at a time. Default 100.
    max_rooms_per_socket: usize = |_| 100;
    /// How many sockets this node serves at a time; more are answered 503. Default: what the limit of open files carries when the
    /// settings are made, two for each socket ([`raise_open_files`](crate::raise_open_files)).
    max_sockets: usize = |_| sockets_within_limit();
    /// How many changes may wait for the database before joins and updates are refused. Default 100,000.
    max_pending_writes: usize = |_| 100_000;
    /// On how many threads rooms live. Default 1; 0 puts them on the thread that starts them, for tests.
    room_threads: usize = |_| 1;
}

impl Default for Config {
    fn default() -> Self {
        Self::builder().build().expect("the defaults hold")
    }
}

impl Config {
    /// Starts from the defaults.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// The defaults, and what the environment says otherwise: `PRESENCE_MAX_AGE=30s`, `PRESENCE_NOTIFY=list`, and so on for
    /// every setting. As [`ConfigBuilder::overlay_env`].
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that cannot be read or does not hold, its value and the rule.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::builder().overlay_env()?.build()
    }

    /// How many messages one client may send.
    pub(crate) fn message_rate(&self) -> Rate {
        Rate::new(self.messages_per_second, self.messages_per_second.saturating_mul(BURST))
    }

    /// How many updates of one socket are written.
    pub(crate) fn update_rate(&self) -> Rate {
        self.rate_of_rooms(self.updates_per_second)
    }

    /// How many joins one socket may ask for.
    pub(crate) fn join_rate(&self) -> Rate {
        self.rate_of_rooms(self.joins_per_second)
    }

    /// A client that comes back to all its rooms, or updates its presence in all of them, does so at once.
    fn rate_of_rooms(&self, per_second: usize) -> Rate {
        Rate::new(per_second, per_second.saturating_mul(BURST).max(self.max_rooms_per_socket))
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let time = |field, value: Duration, holds: bool, rule| {
            let value = humantime::format_duration(value).to_string();
            if holds { Ok(()) } else { Err(ConfigError { field, value, rule }) }
        };
        let count = |field, value: usize, holds: bool, rule| {
            if holds { Ok(()) } else { Err(ConfigError { field, value: value.to_string(), rule }) }
        };
        let ms = Duration::from_millis;
        time("max_age", self.max_age, self.max_age >= ms(100), "it must be at least 100 ms")?;
        // Longer ones, added to a time of the database, would be no times of its.
        time("max_age", self.max_age, self.max_age <= secs(365 * 24 * 3600), "it must be at most 365 days")?;
        let flush = self.touch_flush_interval;
        time("touch_flush_interval", flush, flush >= ms(10), "it must be at least 10 ms")?;
        time("touch_flush_interval", flush, flush <= self.max_age / 4, "it must be at most a quarter of `max_age`")?;
        time("grace", self.grace, self.grace <= self.max_age, "it must not be longer than `max_age`")?;
        let notify = self.notify_interval;
        time("notify_interval", notify, notify <= secs(10), "it must be at most 10 s")?;
        time("lease", self.lease, self.lease >= ms(300), "it must be at least 300 ms")?;
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
            headers <= HEAD_BYTES_OF_ACTIX,
            "it must be at most 131,072, which the HTTP server reads",
        )?;
        count("room_threads", self.room_threads, self.room_threads <= 64, "it must be at most 64")
    }
}

#[cfg(test)]
mod tests;

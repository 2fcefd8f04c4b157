//! Settings as they are written in a file or in the environment: as texts.

use std::{fmt, str::FromStr, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{ConfigError, Durability, Notify, OnStale};

/// How many characters of a text an error repeats that cannot be read.
const TOLD: usize = 60;

/// A type that settings have.
pub(super) trait Setting: Sized {
    /// What its texts look like, to end the sentence "setting … is …, but".
    const RULE: &'static str;

    fn parse(text: &str) -> Option<Self>;
}

impl Setting for Duration {
    const RULE: &'static str = "it must be a time with its unit, such as `30s`, `250ms` or `1m 30s`";

    fn parse(text: &str) -> Option<Self> {
        if text == "0" { Some(Self::ZERO) } else { humantime::parse_duration(text).ok() }
    }
}

impl Setting for usize {
    const RULE: &'static str = "it must be a whole number";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// A choice is written as its name in lower case: in files, in flags and in the environment alike.
macro_rules! choice {
    ($type:ident, $field:literal: $($name:literal => $variant:ident),*; $rule:literal) => {
        impl Setting for $type {
            const RULE: &'static str = $rule;

            fn parse(text: &str) -> Option<Self> {
                match text {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl FromStr for $type {
            type Err = ConfigError;

            fn from_str(text: &str) -> Result<Self, ConfigError> {
                read($field, text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$variant => $name,)* })
            }
        }
    };
}

choice! { Notify, "notify": "list" => List, "events" => Events, "diff" => Diff, "silent" => Silent;
"it must be `list`, `events`, `diff` or `silent`" }
choice! { OnStale, "on_stale": "close" => Close, "keep" => Keep; "it must be `close` or `keep`" }
choice! { Durability, "durability": "committed" => Committed, "relaxed" => Relaxed;
"it must be `committed` or `relaxed`" }

/// A setting as it stands in a file or in the environment. It takes any value, so that the error for a wrong one names the setting.
#[derive(Debug)]
pub(super) struct Written(pub(super) String);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyWritten)
    }
}

struct AnyWritten;

impl<'de> Visitor<'de> for AnyWritten {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a setting")
    }

    fn visit_str<E>(self, text: &str) -> Result<Written, E> {
        Ok(Written(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Written, E> {
        Ok(Written(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Written, E> {
        Ok(Written(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Written, E> {
        Ok(Written(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Written, E> {
        Ok(Written(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Written, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Written("[…]".to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Written, A::Error> {
        while table.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Written("{…}".to_owned()))
    }
}

pub(super) fn read<T: Setting>(field: &'static str, written: &str) -> Result<T, ConfigError> {
    T::parse(written.trim()).ok_or_else(|| ConfigError { field, value: quoted(written), rule: T::RULE })
}

/// A text in a form that fits one line of a log, whatever it holds.
fn quoted(written: &str) -> String {
    let mut characters = written.chars();
    let mut told: String = characters.by_ref().take(TOLD).flat_map(visible).collect();
    if characters.next().is_some() {
        told.push('…');
    }
    format!("`{told}`")
}

fn visible(character: char) -> impl Iterator<Item = char> {
    let is_plain = matches!(character, '\'' | '"' | '\\');
    let (plain, escaped) = if is_plain { (Some(character), None) } else { (None, Some(character.escape_debug())) };
    plain.into_iter().chain(escaped.into_iter().flatten())
}

//! Settings as texts, as in a file or in the environment.

use std::{fmt, str::FromStr, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{ConfigError, Durability, Notify, OnStale};

/// How many characters of an invalid text an error quotes.
const MAX_QUOTED_CHARS: usize = 60;

/// The type of a setting.
pub(super) trait Setting: Sized {
    /// The rule for its texts. It ends the sentence "setting … is …, but".
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

/// The text of a choice is its name in lower case, in files, in flags and in the environment.
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

/// The text of a setting in a file or in the environment. It accepts any value, so that the error for an invalid one names the setting.
#[derive(Debug)]
pub(super) struct RawSetting(pub(super) String);

impl<'de> Deserialize<'de> for RawSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawSettingVisitor)
    }
}

struct RawSettingVisitor;

impl<'de> Visitor<'de> for RawSettingVisitor {
    type Value = RawSetting;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a setting")
    }

    fn visit_str<E>(self, text: &str) -> Result<RawSetting, E> {
        Ok(RawSetting(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<RawSetting, E> {
        Ok(RawSetting(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<RawSetting, E> {
        Ok(RawSetting(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<RawSetting, E> {
        Ok(RawSetting(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<RawSetting, E> {
        Ok(RawSetting(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<RawSetting, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(RawSetting("[…]".to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<RawSetting, A::Error> {
        while table.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(RawSetting("{…}".to_owned()))
    }
}

pub(super) fn read<T: Setting>(field: &'static str, text: &str) -> Result<T, ConfigError> {
    T::parse(text.trim()).ok_or_else(|| ConfigError { field, value: quoted(text), rule: T::RULE })
}

/// Quotes a text so that it fits on one line of the log, whatever it contains.
fn quoted(text: &str) -> String {
    let mut characters = text.chars();
    let mut quoted: String = characters.by_ref().take(MAX_QUOTED_CHARS).flat_map(visible).collect();
    if characters.next().is_some() {
        quoted.push('…');
    }
    format!("`{quoted}`")
}

fn visible(character: char) -> impl Iterator<Item = char> {
    let is_plain = matches!(character, '\'' | '"' | '\\');
    let (plain, escaped) = if is_plain { (Some(character), None) } else { (None, Some(character.escape_debug())) };
    plain.into_iter().chain(escaped.into_iter().flatten())
}

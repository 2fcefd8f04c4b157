//! The doors to the settings, and every rule.

use super::*;

#[test]
fn a_default_that_depends_on_another_setting_follows_it() {
    let config = Config::builder().max_age(secs(4)).build().unwrap();
    assert_eq!((config.touch_flush_interval(), config.grace()), (secs(1), secs(4)));
    assert_eq!(Config::default().grace(), secs(10));
}

#[test]
fn a_grace_longer_than_max_age_is_refused_by_name_value_and_rule() {
    let error = Config::builder().grace(secs(61)).build().unwrap_err();
    assert_eq!(error.to_string(), "setting `grace` is 1m 1s, but it must not be longer than `max_age`");
}

fn from_pairs(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let find = |name: &str| Some(pairs.iter().find(|(known, _)| *known == name)?.1.to_owned());
    Config::builder().overlay(find)?.build()
}

#[test]
fn every_door_leads_to_the_same_settings() {
    let built = Config::builder().max_age(secs(30)).notify(Notify::List).room_threads(2).build().unwrap();
    let file = r#"{"max_age": "30s", "notify": "list", "room_threads": 2}"#;
    assert_eq!(serde_json::from_str::<Config>(file).unwrap(), built);
    let environment =
        [("PRESENCE_MAX_AGE", "30s"), ("PRESENCE_NOTIFY", "list"), ("PRESENCE_ROOM_THREADS", "2"), ("OTHER", "x")];
    assert_eq!(from_pairs(&environment).unwrap(), built);
}

#[test]
fn what_cannot_be_read_is_refused_by_name_value_and_rule() {
    let refused = |pair| from_pairs(&[pair]).unwrap_err().to_string();
    assert_eq!(
        refused(("PRESENCE_MAX_AGE", "soon")),
        "setting `max_age` is `soon`, but it must be a time with its unit, such as `30s`, `250ms` or `1m 30s`"
    );
    assert_eq!(
        refused(("PRESENCE_OUTBOX_FRAMES", "-1")),
        "setting `outbox_frames` is `-1`, but it must be a whole number"
    );
    assert_eq!(
        refused(("PRESENCE_ON_STALE", "Close")),
        "setting `on_stale` is `Close`, but it must be `close` or `keep`"
    );
}

#[test]
fn a_file_is_checked_as_a_whole_and_a_misspelt_setting_is_refused() {
    let error = |file: &str| serde_json::from_str::<Config>(file).unwrap_err().to_string();
    assert!(
        error(r#"{"max_age": "1s", "grace": "2s"}"#).contains("`grace` is 2s"),
        "{}",
        error(r#"{"max_age": "1s", "grace": "2s"}"#)
    );
    assert!(error(r#"{"maxage": "1s"}"#).contains("unknown field `maxage`"));
    for (value, text) in
        [("30", "30"), ("-1", "-1"), ("0.5", "0.5"), ("true", "true"), ("[1]", "[…]"), (r#"{"a": 1}"#, "{…}")]
    {
        let error = error(&format!(r#"{{"max_age": {value}}}"#));
        assert!(
            error.contains(&format!("setting `max_age` is `{text}`, but it must be a time with its unit")),
            "{error}"
        );
    }
}

#[test]
fn a_variable_that_looks_like_a_setting_and_is_none_is_found() {
    let names = ["PRESENCE_MAX_AGE", "PRESENCE_MAXAGE", "PRESENCE_max_age", "PRESENCE_", "presence_grace", "HOME"];
    let unknown: Vec<_> = unknown(names.map(str::to_owned).into_iter()).collect();
    assert_eq!(unknown, ["PRESENCE_MAXAGE", "PRESENCE_max_age", "PRESENCE_"]);
}

#[test]
fn a_time_of_nothing_needs_no_unit() {
    assert_eq!(from_pairs(&[("PRESENCE_GRACE", "0")]).unwrap().grace(), Duration::ZERO);
}

/// What refuses this value of this setting, the others being the defaults.
fn refusal(setting: &str, value: &str) -> Option<ConfigError> {
    from_pairs(&[(&format!("PRESENCE_{}", setting.to_ascii_uppercase()), value)]).err()
}

/// For each rule: the setting, the last valid value, the next value, its text in the error, and the rule.
const RULES: &[(&str, &str, &str, &str, &str)] = &[
    ("max_age", "100ms", "99ms", "99ms", "it must be at least 100 ms"),
    ("max_age", "365days", "31536001s", "11months 30days 3h 50m 25s", "it must be at most 365 days"),
    ("touch_flush_interval", "10ms", "9ms", "9ms", "it must be at least 10 ms"),
    (
        "touch_flush_interval",
        "10min",
        "600001ms",
        "10m 1ms",
        "it must be at most 10 min, or a quarter of `max_age` if that is longer",
    ),
    ("grace", "60s", "61s", "1m 1s", "it must not be longer than `max_age`"),
    ("notify_interval", "10s", "11s", "11s", "it must be at most 10 s"),
    (
        "lease",
        "1200ms",
        "1199ms",
        "1s 199ms",
        "it must be at least 1.2 s: a node that cleans up waits for a sixth of it, and other nodes keep locks for up to 0.2 s",
    ),
    ("lease", "1day", "1day 1s", "1day 1s", "it must be at most a day"),
    ("sweep_interval", "10ms", "9ms", "9ms", "it must be at least 10 ms"),
    ("sweep_interval", "1day", "1day 1s", "1day 1s", "it must be at most a day"),
    ("prune_interval", "10ms", "9ms", "9ms", "it must be at least 10 ms"),
    ("prune_interval", "1day", "1day 1s", "1day 1s", "it must be at most a day"),
    ("prune_rooms_interval", "10ms", "9ms", "9ms", "it must be at least 10 ms"),
    ("prune_rooms_interval", "1day", "1day 1s", "1day 1s", "it must be at most a day"),
    ("reconcile_interval", "10ms", "9ms", "9ms", "it must be at least 10 ms"),
    ("reconcile_interval", "1day", "1day 1s", "1day 1s", "it must be at most a day"),
    ("hold_window", "10ms", "9ms", "9ms", "it must be at least 10 ms"),
    ("hold_window", "1day", "1day 1s", "1day 1s", "it must be at most a day"),
    ("store_timeout", "10ms", "9ms", "9ms", "it must be at least 10 ms"),
    ("store_timeout", "1day", "1day 1s", "1day 1s", "it must be at most a day"),
    ("ping_interval", "10ms", "9ms", "9ms", "it must be at least 10 ms"),
    ("ping_interval", "1day", "1day 1s", "1day 1s", "it must be at most a day"),
    ("pong_timeout", "10ms", "9ms", "9ms", "it must be at least 10 ms"),
    ("pong_timeout", "1day", "1day 1s", "1day 1s", "it must be at most a day"),
    ("write_timeout", "10ms", "9ms", "9ms", "it must be at least 10 ms"),
    ("write_timeout", "1day", "1day 1s", "1day 1s", "it must be at most a day"),
    ("send_patience", "10ms", "9ms", "9ms", "it must be at least 10 ms"),
    ("send_patience", "1day", "1day 1s", "1day 1s", "it must be at most a day"),
    ("close_timeout", "10ms", "9ms", "9ms", "it must be at least 10 ms"),
    ("close_timeout", "1day", "1day 1s", "1day 1s", "it must be at most a day"),
    ("handshake_timeout", "10ms", "9ms", "9ms", "it must be at least 10 ms"),
    ("handshake_timeout", "1day", "1day 1s", "1day 1s", "it must be at most a day"),
    ("handler_timeout", "10ms", "9ms", "9ms", "it must be at least 10 ms"),
    ("handler_timeout", "1day", "1day 1s", "1day 1s", "it must be at most a day"),
    ("rate_patience", "10ms", "9ms", "9ms", "it must be at least 10 ms"),
    ("rate_patience", "1day", "1day 1s", "1day 1s", "it must be at most a day"),
    ("messages_per_second", "0", "1000001", "1000001", "it must be at most 1,000,000"),
    ("messages_per_second", "1000000", "1000001", "1000001", "it must be at most 1,000,000"),
    ("updates_per_second", "1000000", "1000001", "1000001", "it must be at most 1,000,000"),
    ("joins_per_second", "1000000", "1000001", "1000001", "it must be at most 1,000,000"),
    ("max_header_bytes", "1", "0", "0", "it must not be 0"),
    ("max_header_bytes", "131072", "131073", "131073", "it must be at most 131,072, which the HTTP server reads"),
    ("max_frame_bytes", "1", "0", "0", "it must not be 0"),
    ("max_message_bytes", "65536", "65535", "65535", "it must be at least `max_frame_bytes`"),
    ("outbox_frames", "1", "0", "0", "it must not be 0"),
    ("outbox_bytes", "1", "0", "0", "it must not be 0"),
    ("paused_bytes", "1", "0", "0", "it must not be 0"),
    ("steady_rate", "1", "0", "0", "it must not be 0"),
    ("inbox_frames", "1", "0", "0", "it must not be 0"),
    ("max_rooms_per_socket", "1", "0", "0", "it must not be 0"),
    ("first_frames_room_bytes", "1", "0", "0", "it must not be 0"),
    ("first_frames_bytes", "1", "0", "0", "it must not be 0"),
    ("max_frame_sent", "6000", "5999", "5999", "it must be at least 6000 bytes"),
    ("max_sockets", "1", "0", "0", "it must not be 0"),
    ("max_pending_writes", "1", "0", "0", "it must not be 0"),
    ("store_lanes", "1", "0", "0", "it must be between 1 and 16"),
    ("store_lanes", "16", "17", "17", "it must be between 1 and 16"),
    ("room_threads", "64", "65", "65", "it must be at most 64"),
];

#[test]
fn each_rule_holds_to_its_very_limit_and_tells_the_setting_its_value_and_itself() {
    for &(setting, holds, breaks, value, rule) in RULES {
        assert_eq!(refusal(setting, holds), None, "{setting} = {holds}");
        let error = refusal(setting, breaks).unwrap_or_else(|| panic!("{setting} = {breaks} holds"));
        assert_eq!((error.field, &*error.value, error.rule), (setting, value, rule));
        assert_eq!(error.to_string(), format!("setting `{setting}` is {value}, but {rule}"));
    }
}

// behaviour: 2.9 wrong-type; W21 settings-checked-at-start
#[test]
fn each_setting_has_a_rule_and_refuses_what_is_none_of_its_kind() {
    for setting in SETTINGS {
        let error = refusal(setting, "no such thing").unwrap_or_else(|| panic!("{setting} takes anything"));
        assert_eq!((error.field, &*error.value), (*setting, "`no such thing`"));
        let is_choice = matches!(*setting, "notify" | "on_stale" | "durability");
        assert!(is_choice || RULES.iter().any(|rule| rule.0 == *setting), "{setting} has no rule in the table");
    }
}

/// Texts that people and attackers write where a setting is expected.
const HOSTILE: &[&str] = &[
    "",
    " ",
    "\t",
    "90",
    "1e9d",
    "1e9",
    "-1s",
    "- 1s",
    "NaN",
    "nan",
    "inf",
    "∞",
    "null",
    "true",
    "90 s.",
    "9０s",
    "٩٠s",
    "s90",
    "90ss",
    "90x",
    "1s -1s",
    "0x10s",
    "1_000s",
    "1,5s",
    "1:30",
    "PT90S",
    "90s; rm -rf /",
    "${PRESENCE_GRACE}",
    "99999999999999999999s",
    "18446744073709551616ns",
    "584942417356y",
    "\u{202e}s09",
    "9\u{0}0s",
    "90s\u{1b}[31m",
    "\u{fffd}",
];

#[test]
fn a_hostile_text_is_refused_by_name_value_and_rule_in_one_short_line_whatever_door_it_takes() {
    for setting in SETTINGS {
        for text in HOSTILE.iter().map(|text| (*text).to_owned()).chain(["9".repeat(10_000), "é".repeat(10_000)]) {
            if text == "90" && refusal(setting, &text).is_none_or(|error| !error.value.contains('`')) {
                // A number, where one is asked for.
                continue;
            }
            let by_environment = refusal(setting, &text).unwrap_or_else(|| panic!("{setting} takes {text:?}"));
            let file = serde_json::json!({ *setting: &text }).to_string();
            let by_file = serde_json::from_str::<Config>(&file).unwrap_err().to_string();
            let told = by_environment.to_string();
            assert!(by_file.starts_with(&told), "{by_file} is not {told}");
            assert!(told.starts_with(&format!("setting `{setting}` is `")), "{told}");
            assert!(told.ends_with(&format!(", but {}", by_environment.rule)) && told.contains("it must be"), "{told}");
            assert!(told.chars().count() < 250 && !told.contains(char::is_control), "{told:?}");
        }
    }
}

#[test]
fn what_is_no_text_in_a_file_is_told_by_name_too() {
    for setting in SETTINGS {
        for (value, told) in [("-1", "`-1`"), ("0.5", "`0.5`"), ("1e300", "`1"), ("[[[]]]", "`[…]`"), ("{}", "`{…}`")]
        {
            let error =
                serde_json::from_str::<Config>(&format!(r#"{{"{setting}": {value}}}"#)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("setting `{setting}` is {told}")), "{error}");
            assert!(error.chars().count() < 250, "{error}");
        }
        // What is not there has its default.
        assert_eq!(serde_json::from_str::<Config>(&format!(r#"{{"{setting}": null}}"#)).unwrap(), Config::default());
    }
}

#[test]
fn times_are_read_as_people_write_them() {
    for (text, millis) in [
        ("90s", 90_000),
        (" 90s ", 90_000),
        ("90 s", 90_000),
        ("90\u{a0}s", 90_000),
        ("1m 30s", 90_000),
        ("1m30s", 90_000),
        ("1min", 60_000),
    ] {
        let config = from_pairs(&[("PRESENCE_MAX_AGE", text)]).unwrap();
        assert_eq!(config.max_age().as_millis(), millis, "{text:?}");
    }
}

#[test]
fn the_largest_values_of_a_builder_hold_or_are_refused_by_name() {
    let error = Config::builder().max_age(Duration::MAX).build().unwrap_err();
    assert_eq!((error.field, error.rule), ("max_age", "it must be at most 365 days"));
    let error = Config::builder().lease(Duration::MAX).build().unwrap_err();
    assert_eq!((error.field, error.rule), ("lease", "it must be at most a day"));
    let error = Config::builder().ping_interval(Duration::MAX).build().unwrap_err();
    assert_eq!((error.field, error.rule), ("ping_interval", "it must be at most a day"));
    let many = Config::builder().max_frame_bytes(usize::MAX).max_message_bytes(usize::MAX).outbox_frames(usize::MAX);
    let many = many.outbox_bytes(usize::MAX).inbox_frames(usize::MAX).max_rooms_per_socket(usize::MAX);
    assert!(many.max_pending_writes(usize::MAX).build().is_ok());
}

#[test]
fn a_choice_has_one_name_in_flags_files_and_texts() {
    fn is_named<T>(choice: T, name: &str)
    where
        T: std::str::FromStr<Err = ConfigError> + std::fmt::Display + PartialEq + std::fmt::Debug,
        T: serde::Serialize + serde::de::DeserializeOwned,
    {
        assert_eq!((choice.to_string(), serde_json::to_value(&choice).unwrap()), (name.to_owned(), name.into()));
        assert_eq!(
            (name.parse::<T>().unwrap(), serde_json::from_value::<T>(name.into()).unwrap()),
            (name.parse().unwrap(), choice)
        );
    }
    [Notify::List, Notify::Events, Notify::Diff, Notify::Silent]
        .into_iter()
        .zip(["list", "events", "diff", "silent"])
        .for_each(|(choice, name)| is_named(choice, name));
    [OnStale::Close, OnStale::Keep]
        .into_iter()
        .zip(["close", "keep"])
        .for_each(|(choice, name)| is_named(choice, name));
    is_named(Durability::Committed, "committed");
    is_named(Durability::Relaxed, "relaxed");
    let error = "shout".parse::<Notify>().unwrap_err().to_string();
    assert_eq!(error, "setting `notify` is `shout`, but it must be `list`, `events`, `diff` or `silent`");
}

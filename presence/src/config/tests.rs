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

/// For each rule: the setting, the last value that holds, the next one, how that is told, and the rule.
const RULES: &[(&str, &str, &str, &str, &str)] = &[
    ("max_age", "100ms", "99ms", "99ms", "it must be at least 100 ms"),
    ("touch_flush_interval", "10ms", "9ms", "9ms", "it must be at least 10 ms"),
    ("touch_flush_interval", "15s", "15001ms", "15s 1ms", "it must be at most a quarter of `max_age`"),
    ("grace", "60s", "61s", "1m 1s", "it must not be longer than `max_age`"),
    ("notify_interval", "10s", "11s", "11s", "it must be at most 10 s"),
    ("lease", "300ms", "299ms", "299ms", "it must be at least 300 ms"),
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
    ("close_timeout", "10ms", "9ms", "9ms", "it must be at least 10 ms"),
    ("close_timeout", "1day", "1day 1s", "1day 1s", "it must be at most a day"),
    ("handshake_timeout", "10ms", "9ms", "9ms", "it must be at least 10 ms"),
    ("handshake_timeout", "1day", "1day 1s", "1day 1s", "it must be at most a day"),
    ("handler_timeout", "10ms", "9ms", "9ms", "it must be at least 10 ms"),
    ("handler_timeout", "1day", "1day 1s", "1day 1s", "it must be at most a day"),
    ("max_frame_bytes", "1", "0", "0", "it must not be 0"),
    ("max_message_bytes", "65536", "65535", "65535", "it must hold one largest frame"),
    ("outbox_frames", "1", "0", "0", "it must not be 0"),
    ("outbox_bytes", "1", "0", "0", "it must not be 0"),
    ("inbox_frames", "1", "0", "0", "it must not be 0"),
    ("max_rooms_per_socket", "1", "0", "0", "it must not be 0"),
    ("max_pending_writes", "1", "0", "0", "it must not be 0"),
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

#[test]
fn each_setting_has_a_rule_and_refuses_what_is_none_of_its_kind() {
    for setting in SETTINGS {
        let error = refusal(setting, "no such thing").unwrap_or_else(|| panic!("{setting} takes anything"));
        assert_eq!((error.field, &*error.value), (*setting, "`no such thing`"));
        let is_choice = matches!(*setting, "notify" | "on_stale" | "durability");
        assert!(is_choice || RULES.iter().any(|rule| rule.0 == *setting), "{setting} has no rule in the table");
    }
}

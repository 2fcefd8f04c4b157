//! What a client of the `diff` mode knows, and the rules by which frames may change it.
//!
//! Invariant: the frames of one socket chain without holes. A gap, a repeat, an empty frame, or a change that does not
//! fit what is known is a broken promise of the server's, and panics.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// One presence as a frame names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) user: String,
    pub(crate) id: String,
    pub(crate) meta: Value,
}

impl Entry {
    fn read(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().unwrap_or_else(|| panic!("`{key}` in {value}")).to_owned();
        assert!(value["meta"].is_object(), "`meta` is an object: {value}");
        Self { user: text("user"), id: text("id"), meta: value["meta"].clone() }
    }
}

/// The content of one `presence.diff`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Diff {
    pub(crate) joins: Vec<Entry>,
    pub(crate) leaves: Vec<Entry>,
    pub(crate) updates: Vec<Entry>,
    pub(crate) anonymous: u64,
}

impl Diff {
    pub(crate) fn joined(&self) -> Vec<&str> {
        self.joins.iter().map(|entry| entry.user.as_str()).collect()
    }

    pub(crate) fn left(&self) -> Vec<&str> {
        self.leaves.iter().map(|entry| entry.user.as_str()).collect()
    }

    pub(crate) fn updated(&self) -> Vec<(&str, &Value)> {
        self.updates.iter().map(|entry| (entry.user.as_str(), &entry.meta)).collect()
    }
}

/// The room as one receiver knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientRoster {
    pub(crate) room: String,
    pub(crate) epoch: Value,
    pub(crate) version: u64,
    pub(crate) me: String,
    pub(crate) anonymous: u64,
    pub(crate) users: BTreeMap<String, BTreeMap<String, Value>>,
    /// The last frame was part of a state or a diff that goes on.
    pub(crate) more: bool,
}

impl ClientRoster {
    /// Reads the first frame.
    pub(crate) fn first(state: &Value) -> Self {
        assert_eq!(state["type"], "presence.state", "the first frame: {state}");
        let mut users = BTreeMap::new();
        for member in list(state, "members") {
            let user = member["user"].as_str().unwrap_or_else(|| panic!("a user's name in {state}"));
            let mut presences = BTreeMap::new();
            for presence in list(member, "presences") {
                let id = presence["id"].as_str().unwrap_or_else(|| panic!("a presence's id in {state}"));
                assert!(presence["meta"].is_object(), "`meta` is an object: {state}");
                let before = presences.insert(id.to_owned(), presence["meta"].clone());
                assert_eq!(before, None, "{id} stands once in {state}");
            }
            assert!(!presences.is_empty(), "a member has a presence: {state}");
            assert_eq!(users.insert(user.to_owned(), presences), None, "{user} stands once in {state}");
        }
        Self {
            room: state["room"].as_str().unwrap_or_else(|| panic!("`room` in {state}")).to_owned(),
            epoch: epoch(state),
            version: number(state, "version"),
            me: state["me"].as_str().unwrap_or_else(|| panic!("`me` in {state}")).to_owned(),
            anonymous: number(state, "anonymous"),
            users,
            more: more(state),
        }
    }

    /// Applies a diff, which must continue what is known, and returns its content.
    pub(crate) fn apply(&mut self, frame: &Value) -> Diff {
        assert_eq!(frame["type"], "presence.diff", "a diff: {frame}");
        assert_eq!(frame["room"], self.room.as_str(), "a diff of this room: {frame}");
        assert_eq!(epoch(frame), self.epoch, "the epoch stays: {frame}");
        assert_eq!(number(frame, "from"), self.version, "no gap and no repeat after version {}: {frame}", self.version);
        self.version = number(frame, "version");
        let pages = std::mem::replace(&mut self.more, more(frame));
        if self.more {
            assert_eq!(self.version, number(frame, "from"), "a part leads nowhere: {frame}");
        } else {
            assert!(pages || self.version > number(frame, "from"), "the version grows: {frame}");
        }

        let entries = |key| list(frame, key).iter().map(Entry::read).collect::<Vec<_>>();
        let anonymous = number(frame, "anonymous");
        let diff = Diff { joins: entries("joins"), leaves: entries("leaves"), updates: entries("updates"), anonymous };
        let all = [&diff.joins[..], &diff.leaves, &diff.updates].concat();
        assert!(!all.is_empty() || anonymous != self.anonymous, "an empty frame: {frame}");
        let ids: BTreeSet<_> = all.iter().map(|entry| &entry.id).collect();
        assert_eq!(ids.len(), all.len(), "an id stands once in a diff: {frame}");

        for Entry { user, id, .. } in &diff.leaves {
            let presences =
                self.users.get_mut(user).unwrap_or_else(|| panic!("{user} leaves and was not here: {frame}"));
            assert!(presences.remove(id).is_some(), "{id} leaves and was not here: {frame}");
            if presences.is_empty() {
                self.users.remove(user);
            }
        }
        for Entry { user, id, meta } in &diff.joins {
            let before = self.users.entry(user.clone()).or_default().insert(id.clone(), meta.clone());
            assert_eq!(before, None, "{id} joins and was here: {frame}");
        }
        for Entry { user, id, meta } in &diff.updates {
            let known = self.users.get_mut(user).and_then(|presences| presences.get_mut(id));
            let known = known.unwrap_or_else(|| panic!("{id} is updated and is not here: {frame}"));
            assert_ne!(known, meta, "an update that changes nothing: {frame}");
            *known = meta.clone();
        }
        self.anonymous = anonymous;
        diff
    }

    /// Who is here, by bytes, each user once.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.users.keys().map(String::as_str).collect()
    }

    /// How many presences the user has here.
    pub(crate) fn tabs(&self, user: &str) -> usize {
        self.users.get(user).map_or(0, BTreeMap::len)
    }

    /// The presences by id alone, for comparing with the truth.
    pub(crate) fn ids(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let ids =
            self.users.iter().map(|(user, presences)| (user.as_str(), presences.keys().map(String::as_str).collect()));
        ids.collect()
    }
}

fn list<'a>(frame: &'a Value, key: &str) -> &'a [Value] {
    frame[key].as_array().unwrap_or_else(|| panic!("the list `{key}` in {frame}"))
}

fn number(frame: &Value, key: &str) -> u64 {
    frame[key].as_u64().unwrap_or_else(|| panic!("the number `{key}` in {frame}"))
}

fn more(frame: &Value) -> bool {
    assert!(matches!(frame["more"], Value::Null | Value::Bool(true)), "`more` is true or not there: {frame}");
    frame["more"] == true
}

fn epoch(frame: &Value) -> Value {
    assert!(frame["epoch"].is_string() || frame["epoch"].is_u64(), "`epoch` in {frame}");
    frame["epoch"].clone()
}

mod tests {
    use super::*;
    use serde_json::json;

    fn lobby() -> ClientRoster {
        ClientRoster::first(&json!({
            "type": "presence.state", "room": "lobby", "epoch": "e", "version": 4, "anonymous": 1, "me": "1",
            "members": [{"user": "ann", "presences": [{"id": "1", "meta": {}}]}],
        }))
    }

    fn diff(from: u64, version: u64, joins: Value, leaves: Value, updates: Value, anonymous: u64) -> Value {
        json!({"type": "presence.diff", "room": "lobby", "epoch": "e", "from": from, "version": version,
            "joins": joins, "leaves": leaves, "updates": updates, "anonymous": anonymous})
    }

    fn bob() -> Value {
        json!([{"user": "bob", "id": "2", "meta": {}}])
    }

    #[test]
    fn a_chain_of_diffs_gives_the_roster() {
        let mut roster = lobby();
        let told = roster.apply(&diff(4, 5, bob(), json!([]), json!([]), 1));
        assert_eq!((told.joined(), roster.names(), roster.tabs("bob")), (vec!["bob"], vec!["ann", "bob"], 1));
        let away = json!([{"user": "bob", "id": "2", "meta": {"away": true}}]);
        let told = roster.apply(&diff(5, 7, json!([]), json!([]), away, 1));
        assert_eq!(told.updated(), [("bob", &json!({"away": true}))]);
        let told = roster.apply(&diff(7, 8, json!([]), bob(), json!([]), 0));
        assert_eq!((told.left(), roster.names(), roster.anonymous), (vec!["bob"], vec!["ann"], 0));
    }

    #[test]
    fn the_parts_of_a_state_and_of_a_diff_chain() {
        let part = |from, version, joins, leaves| {
            let mut part = diff(from, version, joins, leaves, json!([]), 1);
            part["more"] = json!(true);
            part
        };
        let mut roster = lobby();
        roster.apply(&part(4, 4, bob(), json!([])));
        assert!(roster.more);
        roster.apply(&diff(4, 4, json!([{"user": "cid", "id": "3", "meta": {}}]), json!([]), json!([]), 1));
        assert!(!roster.more);
        roster.apply(&part(4, 4, json!([]), bob()));
        roster.apply(&diff(4, 5, bob(), json!([]), json!([]), 1));
        assert_eq!((roster.names(), roster.version, roster.more), (vec!["ann", "bob", "cid"], 5, false));
    }

    #[test]
    #[should_panic(expected = "leads nowhere")]
    fn a_part_that_leads_to_another_version_fails_loudly() {
        let mut part = diff(4, 5, bob(), json!([]), json!([]), 1);
        part["more"] = json!(true);
        lobby().apply(&part);
    }

    #[test]
    #[should_panic(expected = "no gap")]
    fn a_gap_fails_loudly() {
        lobby().apply(&diff(5, 6, bob(), json!([]), json!([]), 1));
    }

    #[test]
    #[should_panic(expected = "an empty frame")]
    fn an_empty_frame_fails_loudly() {
        lobby().apply(&diff(4, 5, json!([]), json!([]), json!([]), 1));
    }

    #[test]
    #[should_panic(expected = "joins and was here")]
    fn a_repeated_join_fails_loudly() {
        let ann = json!([{"user": "ann", "id": "1", "meta": {}}]);
        lobby().apply(&diff(4, 5, ann, json!([]), json!([]), 1));
    }

    #[test]
    #[should_panic(expected = "was not here")]
    fn a_leave_of_a_stranger_fails_loudly() {
        lobby().apply(&diff(4, 5, json!([]), bob(), json!([]), 1));
    }

    #[test]
    #[should_panic(expected = "changes nothing")]
    fn an_update_without_news_fails_loudly() {
        let ann = json!([{"user": "ann", "id": "1", "meta": {}}]);
        lobby().apply(&diff(4, 5, json!([]), json!([]), ann, 1));
    }
}

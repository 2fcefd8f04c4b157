//! What a client shows after its frames. It accepts no frame that does not follow on the one before.

use std::collections::BTreeMap;

use serde_json::Value;

/// One room as a client shows it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ClientView {
    /// The position at which the next diff must begin.
    pub(crate) epoch: String,
    pub(crate) version: u64,
    /// Its own presence.
    pub(crate) me: String,
    /// The user and the meta of each presence.
    pub(crate) here: BTreeMap<String, (String, Value)>,
    pub(crate) anonymous: u64,
    /// How many states it received.
    pub(crate) states: usize,
    pub(crate) diffs: usize,
    /// The changes in diffs, in order: `+a`, `-a`, `~a`.
    pub(crate) changes: Vec<String>,
    /// All frames that are no notices.
    pub(crate) messages: Vec<Value>,
}

impl ClientView {
    pub(crate) fn show(&mut self, frame: &Value) {
        match frame["type"].as_str() {
            Some("presence.state") => self.state(frame),
            Some("presence.diff") => self.diff(frame),
            _ => self.messages.push(frame.clone()),
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.here.values().map(|(user, _)| user.clone()).collect();
        names.sort();
        names
    }

    fn state(&mut self, frame: &Value) {
        self.states += 1;
        self.epoch = text(&frame["epoch"]);
        self.me = text(&frame["me"]);
        self.version = frame["version"].as_u64().unwrap();
        self.anonymous = frame["anonymous"].as_u64().unwrap();
        let presences = frame["members"].as_array().unwrap().iter().flat_map(|member| {
            let presences = member["presences"].as_array().unwrap().iter();
            presences.map(|one| (text(&one["id"]), (text(&member["user"]), one["meta"].clone())))
        });
        self.here = presences.collect();
    }

    fn diff(&mut self, frame: &Value) {
        self.diffs += 1;
        assert_eq!(text(&frame["epoch"]), self.epoch, "a diff is of the life that the client knows");
        assert_eq!(frame["from"].as_u64().unwrap(), self.version, "the frames chain");
        self.version = frame["version"].as_u64().unwrap();
        let anonymous = frame["anonymous"].as_u64().unwrap();
        let [left, joined, updated] = ["leaves", "joins", "updates"].map(|list| frame[list].as_array().unwrap());
        let nothing = left.is_empty() && joined.is_empty() && updated.is_empty() && anonymous == self.anonymous;
        assert!(!nothing, "an empty frame is never sent");
        self.anonymous = anonymous;
        for one in left {
            let (user, _) = self.here.remove(&text(&one["id"])).expect("who leaves was there");
            assert_eq!(user, text(&one["user"]));
            self.changes.push(format!("-{user}"));
        }
        for one in joined {
            let user = text(&one["user"]);
            self.changes.push(format!("+{user}"));
            let was = self.here.insert(text(&one["id"]), (user, one["meta"].clone()));
            assert_eq!(was, None, "who joins was not there");
        }
        for one in updated {
            let (user, meta) = self.here.get_mut(&text(&one["id"])).expect("who changes is there");
            self.changes.push(format!("~{user}"));
            *meta = one["meta"].clone();
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

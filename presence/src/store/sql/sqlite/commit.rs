//! The two messages of a commit to SQLite. Each has several statements in one text, so that the thread of the connection is woken once.
//!
//! Parameters have no numbers, because the driver counts them over all statements of a text.

use std::fmt::{self, Write as _};

use sea_orm::{DbBackend, Statement, Value, prelude::Uuid};

use crate::{
    name::{Epoch, PresenceId},
    session::{Session, SessionHash},
    store::{millis, recent::whole_seconds},
};

use super::super::{
    chunk,
    commit::{CommitKeys, CommitWrite},
};

/// The keys are passed as JSON, so that the text is the same for any number of them. They are joined, because for `IN` with a subquery
/// SQLite would build a table and a filter of 10,000 bytes.
const READ: &str = "\
    SELECT 0, fenced_at, lost_name FROM nodes INNER JOIN last_commits ON last_commits.node_id = nodes.id WHERE nodes.id = ?; \
    SELECT 1, rooms.id, rooms.channel_name, rooms.version \
    FROM json_each(?) AS named CROSS JOIN rooms ON rooms.channel_name = named.value; \
    SELECT 2, presences.id, room_id, channel_name, user_id, meta, node_id, held_until, session_hash \
    FROM json_each(?) AS named CROSS JOIN presences ON presences.id = unhex(named.value)";

const READ_SESSIONS: &str = "; \
    SELECT 2, presences.id, room_id, channel_name, user_id, meta, node_id, held_until, session_hash \
    FROM json_each(?) AS named CROSS JOIN presences ON presences.session_hash = unhex(named.value)";

pub(super) fn read(CommitKeys { node, rooms, presences, sessions }: &CommitKeys<'_>) -> Statement {
    let rooms = json(*rooms, |json, room| {
        json.push_str(&serde_json::to_string(room.as_str()).map_err(|_| fmt::Error)?);
        Ok(())
    });
    let presences = json(*presences, |json, id: &PresenceId| write!(json, "\"{}\"", id.as_uuid().simple()));
    let mut values: Vec<Value> = vec![node.as_uuid().into(), rooms.into(), presences.into()];
    let mut sql = READ.to_owned();
    if !sessions.is_empty() {
        sql.push_str(READ_SESSIONS);
        values.push(json(*sessions, hash).into());
    }
    Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)
}

/// A JSON list.
fn json<T>(keys: impl IntoIterator<Item = T>, mut add: impl FnMut(&mut String, T) -> fmt::Result) -> String {
    let mut json = String::from("[");
    for key in keys {
        if json.len() > 1 {
            json.push(',');
        }
        add(&mut json, key).expect("a string takes every text");
    }
    json.push(']');
    json
}

fn hash(json: &mut String, hash: &SessionHash) -> fmt::Result {
    json.push('"');
    hash.as_bytes().iter().try_for_each(|byte| write!(json, "{byte:02x}"))?;
    json.push('"');
    Ok(())
}

pub(super) fn write(CommitWrite { node, attempt, now, gone, new, changed }: &CommitWrite<'_>) -> Statement {
    let (mut sql, mut values) = (String::with_capacity(512), Vec::new());
    let gone: Vec<_> = gone.iter().map(PresenceId::as_uuid).collect();
    add_keyed(&mut sql, &mut values, "DELETE FROM presences WHERE id IN (", None, &gone);
    let mut separator = "INSERT INTO presences \
        (id, room_id, channel_name, user_id, meta, session_hash, grace, node_id, joined_at, last_seen) VALUES ";
    for (room, (presence, session)) in *new {
        sql.push_str(separator);
        sql.push_str("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
        separator = ", ";
        let session = session.as_ref();
        values.extend([
            presence.id.as_uuid().into(),
            room.as_uuid().into(),
            presence.channel.as_str().into(),
            presence.user.as_ref().map(|user| user.as_str()).into(),
            presence.meta.as_str().into(),
            session.map(|session: &Session| session.hash.as_bytes().to_vec()).into(),
            session.map(|session| millis(session.grace)).into(),
            presence.node.as_uuid().into(),
            (*now).into(),
            (*now).into(),
        ]);
    }
    if !new.is_empty() {
        sql.push_str("; ");
    }
    let changed: Vec<_> = changed.iter().map(Epoch::as_uuid).collect();
    let increment = "UPDATE rooms SET version = version + 1, changed_at = ? WHERE id IN (";
    add_keyed(&mut sql, &mut values, increment, Some(whole_seconds(*now)), &changed);
    sql.push_str("UPDATE last_commits SET attempt = ?, commits = commits + 1 WHERE node_id = ?");
    values.extend([attempt.number().into(), node.as_uuid().into()]);
    Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)
}

/// Adds a statement for these keys, which begins so, with a parameter before the keys if there is a `first`. Without keys, there is none.
fn add_keyed(sql: &mut String, values: &mut Vec<Value>, begin: &str, first: Option<i64>, keys: &[Uuid]) {
    for keys in chunk::lists(keys) {
        sql.push_str(begin);
        values.extend(first.map(Value::from));
        sql.push_str(&vec!["?"; keys.len()].join(", "));
        sql.push_str("); ");
        values.extend(keys.into_iter().map(Value::from));
    }
}

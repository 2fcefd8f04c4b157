//! The two statements of a commit in SQLite. Each is several statements in one text, so that the thread of the connection is woken once.
//!
//! Lists are passed as JSON. So the texts are the same for any number of rows, and stay prepared. Parameters have no numbers, because the
//! driver counts them over all statements of a text.

use std::fmt::{self, Write as _};

use sea_orm::{DbBackend, Statement, prelude::Uuid};

use crate::{
    name::{Epoch, PresenceId},
    session::{Session, SessionHash},
    store::millis,
};

use super::super::{
    statement::In,
    transaction::{CommitKeys, CommitWrite},
};

const READ: &str = "\
    SELECT 0, fenced_at, lost_name FROM nodes INNER JOIN last_commits ON last_commits.node_id = nodes.id WHERE nodes.id = ?; \
    SELECT 1, id, channel_name, version FROM rooms WHERE channel_name IN (SELECT value FROM json_each(?)); \
    SELECT 2, id, room_id, channel_name, user_id, meta, node_id, held_until, session_hash FROM presences \
    WHERE id IN (SELECT unhex(value) FROM json_each(?)); \
    SELECT 2, id, room_id, channel_name, user_id, meta, node_id, held_until, session_hash FROM presences \
    WHERE session_hash IN (SELECT unhex(value) FROM json_each(?))";

const WRITE: &str = "\
    DELETE FROM presences WHERE id IN (SELECT unhex(value) FROM json_each(?)); \
    INSERT INTO presences (id, room_id, channel_name, user_id, meta, session_hash, grace, node_id, joined_at, last_seen) \
    SELECT unhex(value ->> 0), unhex(value ->> 1), value ->> 2, value ->> 3, value ->> 4, unhex(value ->> 5), value ->> 6, ?, ?, ? \
    FROM json_each(?); \
    UPDATE rooms SET version = version + 1 WHERE id IN (SELECT unhex(value) FROM json_each(?)); \
    UPDATE last_commits SET attempt = ? WHERE node_id = ?";

pub(super) fn read(CommitKeys { node, rooms, presences, sessions }: &CommitKeys<'_>) -> Statement {
    let rooms = json(*rooms, |json, room| text(json, room.as_str()));
    let presences = json(*presences, |json, id: &PresenceId| uuid(json, id.as_uuid()));
    let sessions = json(*sessions, hash);
    let values = [node.as_uuid().into(), rooms.into(), presences.into(), sessions.into()];
    Statement::from_sql_and_values(DbBackend::Sqlite, READ, values)
}

pub(super) fn write(CommitWrite { node, attempt, now, gone, new, changed }: &CommitWrite<'_>) -> Statement {
    let gone = json(*gone, |json, id: &PresenceId| uuid(json, id.as_uuid()));
    let new = json(*new, |json, (room, (presence, session)): &In<_>| {
        let session: &Option<Session> = session;
        json.push('[');
        uuid(json, presence.id.as_uuid())?;
        json.push(',');
        uuid(json, room.as_uuid())?;
        json.push(',');
        text(json, presence.channel.as_str())?;
        json.push(',');
        or_null(json, presence.user.as_ref(), |json, user| text(json, user.as_str()))?;
        json.push(',');
        text(json, presence.meta.as_str())?;
        json.push(',');
        or_null(json, session.as_ref(), |json, session| hash(json, &session.hash))?;
        json.push(',');
        or_null(json, session.as_ref(), |json, session| write!(json, "{}", millis(session.grace)))?;
        json.push(']');
        Ok(())
    });
    let changed = json(*changed, |json, room: &Epoch| uuid(json, room.as_uuid()));
    let (node, now) = (node.as_uuid(), *now);
    let inserted = [node.into(), now.into(), now.into(), new.into()];
    let values = [gone.into()].into_iter().chain(inserted).chain([changed.into(), attempt.0.into(), node.into()]);
    Statement::from_sql_and_values(DbBackend::Sqlite, WRITE, values)
}

/// A JSON list.
fn json<T>(rows: impl IntoIterator<Item = T>, mut add: impl FnMut(&mut String, T) -> fmt::Result) -> String {
    let mut json = String::from("[");
    for row in rows {
        if json.len() > 1 {
            json.push(',');
        }
        add(&mut json, row).expect("a string takes every text");
    }
    json.push(']');
    json
}

fn or_null<T>(json: &mut String, value: Option<T>, add: impl FnOnce(&mut String, T) -> fmt::Result) -> fmt::Result {
    match value {
        Some(value) => add(json, value),
        None => json.write_str("null"),
    }
}

fn uuid(json: &mut String, uuid: Uuid) -> fmt::Result {
    write!(json, "\"{}\"", uuid.simple())
}

fn hash(json: &mut String, hash: &SessionHash) -> fmt::Result {
    json.push('"');
    hash.as_bytes().iter().try_for_each(|byte| write!(json, "{byte:02x}"))?;
    json.push('"');
    Ok(())
}

fn text(json: &mut String, text: &str) -> fmt::Result {
    json.push_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?);
    Ok(())
}

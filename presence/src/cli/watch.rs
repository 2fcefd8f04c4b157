//! `presence watch`: prints joins, leaves and updates when they are in the database.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Write},
    mem,
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use crate::{
    model::{Delta, Presence, delta::NetChanges, roster::Roster},
    name::{ChannelName, Epoch, NodeId, PresenceId, RoomName, UserId, Version},
    store::{RoomStore, SqlStore, Store, StoreError},
};

use super::{
    args::Args,
    failure::{Failure, why},
    json::{self, OneLine},
    table::visible,
};

/// One line of the output, as text or as a JSON object.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum OutputLine<'a> {
    /// The first line: all later changes are printed.
    Watching {
        rooms: usize,
        presences: usize,
    },
    Joined(ChangedPresence<'a>),
    Left(ChangedPresence<'a>),
    Updated(ChangedPresence<'a>),
}

#[derive(Debug, Serialize)]
struct ChangedPresence<'a> {
    room: &'a RoomName,
    /// The epoch of the room when it was loaded; `None` if the room does not exist any more.
    epoch: Option<Epoch>,
    version: Option<Version>,
    user: Option<&'a UserId>,
    id: PresenceId,
    channel: &'a ChannelName,
    node_id: NodeId,
    meta: OneLine<'a>,
}

/// Follows the database until an error that a repetition cannot solve.
pub(super) async fn watch(
    store: &SqlStore,
    only: Option<&RoomName>,
    interval: Duration,
    args: &Args,
) -> Result<(), Failure> {
    let mut watched = Watched::default();
    watched.update(store, only, &mut Vec::new()).await?;
    let presences = watched.rooms.values().map(|room| room.roster.len()).sum();
    print(args, [OutputLine::Watching { rooms: watched.rooms.len(), presences }])?;
    let mut is_away = false;
    loop {
        tokio::time::sleep(interval).await;
        let mut changes = Vec::new();
        let updated = watched.update(store, only, &mut changes).await;
        // Changes that were found before an error would not be found again.
        for change in &changes {
            print(args, change.lines())?;
        }
        match updated {
            Ok(()) => is_away = false,
            Err(error @ StoreError::Unavailable(_)) => {
                if !is_away {
                    let error = store.check_connection().await.err().unwrap_or(error);
                    let _ = writeln!(io::stderr(), "watching goes on when the database is back: {}", why(&error));
                }
                is_away = true;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn print<'a>(args: &Args, lines: impl IntoIterator<Item = OutputLine<'a>>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        let text = if args.json { json::line(&line) } else { line.text() };
        out.write_all(text.as_bytes())?;
    }
    out.flush()
}

/// The rooms as they were last loaded.
#[derive(Debug, Default)]
struct Watched {
    rooms: HashMap<RoomName, WatchedRoom>,
}

#[derive(Debug, Default)]
struct WatchedRoom {
    position: Option<(Epoch, Version)>,
    roster: Roster,
}

/// What happened in a room between two queries.
#[derive(Debug)]
struct RoomChange {
    room: RoomName,
    position: Option<(Epoch, Version)>,
    delta: Delta,
}

impl Watched {
    /// Queries the versions of the rooms, and loads those that have changed.
    async fn update(
        &mut self,
        store: &SqlStore,
        only: Option<&RoomName>,
        changes: &mut Vec<RoomChange>,
    ) -> Result<(), StoreError> {
        let positions = match only {
            Some(room) => store.positions(std::slice::from_ref(room).into()).await?,
            None => store.all_positions().await?,
        };
        let mut gone: HashSet<RoomName> = self.rooms.keys().cloned().collect();
        for (name, epoch, version) in positions {
            gone.remove(&name);
            if self.rooms.get(&name).is_some_and(|room| room.position == Some((epoch, version))) {
                continue;
            }
            match store.load(name.clone()).await? {
                Some(now) => changes.extend(self.replace(&name, Some((now.epoch, now.version)), now.presences)),
                None => changes.extend(self.replace(&name, None, Vec::new())),
            }
        }
        for name in gone {
            changes.extend(self.replace(&name, None, Vec::new()));
        }
        Ok(())
    }

    /// Replaces what is known of a room. Returns the difference.
    fn replace(
        &mut self,
        name: &RoomName,
        position: Option<(Epoch, Version)>,
        presences: Vec<Arc<Presence>>,
    ) -> Option<RoomChange> {
        let room = self.rooms.entry(name.clone()).or_default();
        room.position = position;
        let mut net = NetChanges::default();
        let before = mem::replace(&mut room.roster, Roster::from(presences));
        net.add(room.roster.changes_since(&before));
        let delta = net.take();
        if position.is_none() {
            self.rooms.remove(name);
        }
        (!delta.is_empty()).then(|| RoomChange { room: name.clone(), position, delta })
    }
}

impl RoomChange {
    fn lines(&self) -> impl Iterator<Item = OutputLine<'_>> {
        let left = self.delta.left.iter().map(move |presence| OutputLine::Left(self.changed(presence)));
        let joined = self.delta.joined.iter().map(move |presence| OutputLine::Joined(self.changed(presence)));
        let updated = self.delta.updated.iter().map(move |presence| OutputLine::Updated(self.changed(presence)));
        left.chain(joined).chain(updated)
    }

    fn changed<'a>(&'a self, presence: &'a Presence) -> ChangedPresence<'a> {
        let (epoch, version) = self.position.unzip();
        ChangedPresence {
            room: &self.room,
            epoch,
            version,
            user: presence.user.as_ref(),
            id: presence.id,
            channel: &presence.channel,
            node_id: presence.node,
            meta: OneLine(&presence.meta),
        }
    }
}

impl OutputLine<'_> {
    fn text(&self) -> String {
        let (event, changed) = match self {
            Self::Watching { rooms, presences } => return format!("watching: rooms {rooms}, presences {presences}\n"),
            Self::Joined(changed) => ("joined ", changed),
            Self::Left(changed) => ("left   ", changed),
            Self::Updated(changed) => ("updated", changed),
        };
        let user = changed.user.map_or("(anonymous)", UserId::as_str);
        let text = format!("{event}  {}  {user}", changed.room);
        let meta = if changed.meta.0.is_empty() { String::new() } else { format!("  {}", changed.meta) };
        format!("{}{}\n", visible(&text), visible(&meta))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presence(user: Option<&str>) -> Arc<Presence> {
        let channel = ChannelName::new("a").unwrap();
        let user = user.map(|user| UserId::new(user).unwrap());
        Arc::new(Presence::new(PresenceId::random(), channel, user, NodeId::random()))
    }

    #[test]
    fn a_room_that_is_removed_or_begins_a_new_epoch_is_printed_as_leaves_and_joins() {
        let (mut watched, room) = (Watched::default(), RoomName::new("lobby").unwrap());
        let [first, second] = [0, 1].map(|_| Some((Epoch::random(), Version(1))));
        let (ann, bob) = (presence(Some("ann")), presence(None));
        let texts = |change: Option<RoomChange>| -> Vec<String> {
            change.iter().flat_map(RoomChange::lines).map(|line| line.text()).collect()
        };
        assert_eq!(texts(watched.replace(&room, first, vec![ann.clone()])), ["joined   lobby  ann\n"]);
        let anew = texts(watched.replace(&room, second, vec![bob]));
        assert_eq!(anew, ["left     lobby  ann\n", "joined   lobby  (anonymous)\n"]);
        assert_eq!(texts(watched.replace(&room, None, Vec::new())), ["left     lobby  (anonymous)\n"]);
        assert!(watched.rooms.is_empty());
        assert_eq!(texts(watched.replace(&room, None, Vec::new())), Vec::<String>::new());
    }
}

//! `presence watch`: who joins, leaves and changes, as the database learns of it.

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
    Failure,
    args::Args,
    json::{self, OneLine},
    table::visible,
    why,
};

/// What is printed: one object, or one line of text.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line<'a> {
    /// Everything from here on is told.
    Watching {
        rooms: usize,
        presences: usize,
    },
    Joined(Told<'a>),
    Left(Told<'a>),
    Updated(Told<'a>),
}

#[derive(Debug, Serialize)]
struct Told<'a> {
    room: &'a RoomName,
    /// Where the room stood when it was looked at; `None`: it was pruned by then.
    epoch: Option<Epoch>,
    version: Option<Version>,
    user: Option<&'a UserId>,
    id: PresenceId,
    channel: &'a ChannelName,
    node_id: NodeId,
    meta: OneLine<'a>,
}

/// Follows the database until an error that asking again would not mend.
pub(super) async fn watch(
    store: &SqlStore,
    only: Option<&RoomName>,
    interval: Duration,
    args: &Args,
) -> Result<(), Failure> {
    let mut watched = Watched::default();
    watched.look(store, only, &mut Vec::new()).await?;
    let presences = watched.rooms.values().map(|room| room.roster.len()).sum();
    print(args, [Line::Watching { rooms: watched.rooms.len(), presences }])?;
    let mut away = false;
    loop {
        tokio::time::sleep(interval).await;
        let mut changes = Vec::new();
        let looked = watched.look(store, only, &mut changes).await;
        // What was seen before an error will not be seen again.
        for change in &changes {
            print(args, change.lines())?;
        }
        match looked {
            Ok(()) => away = false,
            Err(error @ StoreError::Unavailable(_)) => {
                if !away {
                    let error = store.check_connection().await.err().unwrap_or(error);
                    let _ = writeln!(io::stderr(), "watching goes on when the database is back: {}", why(&error));
                }
                away = true;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn print<'a>(args: &Args, lines: impl IntoIterator<Item = Line<'a>>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        let text = if args.json { json::line(&line) } else { line.text() };
        out.write_all(text.as_bytes())?;
    }
    out.flush()
}

/// The rooms as they were last seen.
#[derive(Debug, Default)]
struct Watched {
    rooms: HashMap<RoomName, Room>,
}

#[derive(Debug, Default)]
struct Room {
    position: Option<(Epoch, Version)>,
    roster: Roster,
}

/// What happened in a room between two looks.
#[derive(Debug)]
struct Change {
    room: RoomName,
    position: Option<(Epoch, Version)>,
    delta: Delta,
}

impl Watched {
    /// Looks where rooms stand, and reads those anew that moved.
    async fn look(
        &mut self,
        store: &SqlStore,
        only: Option<&RoomName>,
        changes: &mut Vec<Change>,
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
                Some(now) => changes.extend(self.now(&name, Some((now.epoch, now.version)), now.presences)),
                None => changes.extend(self.now(&name, None, Vec::new())),
            }
        }
        for name in gone {
            changes.extend(self.now(&name, None, Vec::new()));
        }
        Ok(())
    }

    fn now(
        &mut self,
        name: &RoomName,
        position: Option<(Epoch, Version)>,
        presences: Vec<Arc<Presence>>,
    ) -> Option<Change> {
        let room = self.rooms.entry(name.clone()).or_default();
        room.position = position;
        let mut net = NetChanges::default();
        let before = mem::replace(&mut room.roster, Roster::from(presences));
        net.add(room.roster.changes_since(&before));
        let delta = net.take();
        if position.is_none() {
            self.rooms.remove(name);
        }
        (!delta.is_empty()).then(|| Change { room: name.clone(), position, delta })
    }
}

impl Change {
    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let left = self.delta.left.iter().map(move |presence| Line::Left(self.told(presence)));
        let joined = self.delta.joined.iter().map(move |presence| Line::Joined(self.told(presence)));
        let updated = self.delta.updated.iter().map(move |presence| Line::Updated(self.told(presence)));
        left.chain(joined).chain(updated)
    }

    fn told<'a>(&'a self, presence: &'a Presence) -> Told<'a> {
        let (epoch, version) = self.position.unzip();
        Told {
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

impl Line<'_> {
    fn text(&self) -> String {
        let (event, told) = match self {
            Self::Watching { rooms, presences } => return format!("watching: rooms {rooms}, presences {presences}\n"),
            Self::Joined(told) => ("joined ", told),
            Self::Left(told) => ("left   ", told),
            Self::Updated(told) => ("updated", told),
        };
        let user = told.user.map_or("(anonymous)", UserId::as_str);
        let text = format!("{event}  {}  {user}", told.room);
        let meta = if told.meta.0.is_empty() { String::new() } else { format!("  {}", told.meta) };
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
    fn a_room_that_vanishes_or_begins_anew_is_told_as_those_who_left_and_came() {
        let (mut watched, room) = (Watched::default(), RoomName::new("lobby").unwrap());
        let [first, second] = [0, 1].map(|_| Some((Epoch::random(), Version(1))));
        let (ann, bob) = (presence(Some("ann")), presence(None));
        let texts = |change: Option<Change>| -> Vec<String> {
            change.iter().flat_map(Change::lines).map(|line| line.text()).collect()
        };
        assert_eq!(texts(watched.now(&room, first, vec![ann.clone()])), ["joined   lobby  ann\n"]);
        let anew = texts(watched.now(&room, second, vec![bob]));
        assert_eq!(anew, ["left     lobby  ann\n", "joined   lobby  (anonymous)\n"]);
        assert_eq!(texts(watched.now(&room, None, Vec::new())), ["left     lobby  (anonymous)\n"]);
        assert!(watched.rooms.is_empty());
        assert_eq!(texts(watched.now(&room, None, Vec::new())), Vec::<String>::new());
    }
}

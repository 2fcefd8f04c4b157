//! A database to run the tool on.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use presence::{
    ChannelName, Meta, NodeId, NodeName, Presence, PresenceId, RoomName, SqlStore, UserId,
    store::{Attempt, NodeStore, RoomCommit, RoomStore, RoomWrites, Store, Write},
};
use tempfile::TempDir;

use super::command::{self, Ran};

pub(crate) const LEASE: Duration = Duration::from_secs(60);

pub(crate) struct TestDatabase {
    folder: TempDir,
    pub(crate) store: SqlStore,
}

impl TestDatabase {
    /// Without tables.
    pub(crate) fn bare() -> Self {
        let folder = TempDir::new().unwrap();
        let store = SqlStore::connect(&url(&folder)).unwrap();
        Self { folder, store }
    }

    pub(crate) async fn new() -> Self {
        let database = Self::bare();
        database.store.prepare().await.unwrap();
        database
    }

    pub(crate) fn url(&self) -> String {
        url(&self.folder)
    }

    /// The tool on this database.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command::presence(arguments);
        command.env("DATABASE_URL", self.url());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        command::run(self.command(arguments))
    }

    /// The same database, seen by one whose clock is behind by so much.
    pub(crate) fn ago(&self, time: Duration) -> SqlStore {
        let time = millis(time);
        SqlStore::connect(&self.url()).unwrap().with_wall_clock(move || wall_clock() - time)
    }

    /// The same database, seen by one whose clock is ahead by so much.
    pub(crate) fn ahead(&self, time: Duration) -> SqlStore {
        let time = millis(time);
        SqlStore::connect(&self.url()).unwrap().with_wall_clock(move || wall_clock() + time)
    }
}

fn url(folder: &TempDir) -> String {
    format!("sqlite://{}/presence.db", folder.path().display())
}

fn wall_clock() -> i64 {
    millis(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap())
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap()
}

pub(crate) fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

pub(crate) async fn node(store: &SqlStore, name: &str) -> NodeId {
    let node = NodeId::random();
    store.register(node, NodeName::new(name).unwrap(), LEASE).await.unwrap();
    node
}

/// A presence on a channel, of a user or (empty) of nobody.
pub(crate) fn presence(node: NodeId, channel: &str, user: &str) -> Arc<Presence> {
    let user = (!user.is_empty()).then(|| UserId::new(user).unwrap());
    Arc::new(Presence::new(PresenceId::random(), ChannelName::new(channel).unwrap(), user, node))
}

pub(crate) fn with_meta(presence: &Presence, meta: &str) -> Arc<Presence> {
    let mut presence = presence.clone();
    presence.meta = Meta::from_json(meta).unwrap();
    Arc::new(presence)
}

pub(crate) fn leave(presence: &Presence) -> Write {
    Write::Leave { id: presence.id, channel: presence.channel.clone() }
}

pub(crate) async fn change(
    store: &SqlStore,
    node: NodeId,
    name: &str,
    writes: impl IntoIterator<Item = Write>,
) -> RoomCommit {
    let writes = RoomWrites { room: room(name), writes: writes.into_iter().collect() };
    store.commit(node, Attempt::next(), [writes].clone().into()).await.unwrap().remove(0)
}

/// Joins one anonymous presence for each of the channels.
pub(crate) async fn crowd(store: &SqlStore, node: NodeId, name: &str, size: usize) -> Vec<Arc<Presence>> {
    let crowd: Vec<_> = (0..size).map(|n| presence(node, &format!("{name}/{n}"), "")).collect();
    change(store, node, name, crowd.iter().cloned().map(Write::Join)).await;
    crowd
}

//! `presence rooms`, `members`, `users` and `nodes`.

use std::{collections::HashMap, time::Duration};

use serde::{Serialize, Serializer};

use crate::{
    model::{Member, Meta, Presence, Snapshot, roster::Roster},
    name::{ChannelName, Epoch, NodeId, NodeName, PresenceId, RoomName, UserId, Version},
    store::{NodeState, NodeStore, NodeSummary, RoomStore, RoomSummary, SqlStore},
};

use super::{
    failure::Failure,
    json::OneLine,
    report::Report,
    table::{
        Column::{Number, Text},
        Medium, shortened, table,
    },
};

/// How many columns of a meta or of a name a table shows.
const COLUMNS: usize = 60;

#[derive(Debug, Serialize)]
pub(super) struct RoomList {
    rooms: Vec<ListedRoom>,
}

#[derive(Debug, Serialize)]
struct ListedRoom {
    room: RoomName,
    epoch: Epoch,
    version: Version,
    users: u64,
    anonymous: u64,
    presences: u64,
    held: u64,
}

pub(super) async fn rooms(store: &SqlStore) -> Result<RoomList, Failure> {
    let room = |summary| {
        let RoomSummary { room, epoch, version, users, anonymous, presences, held } = summary;
        ListedRoom { room, epoch, version, users, anonymous, presences, held }
    };
    Ok(RoomList { rooms: store.rooms(None, u64::MAX).await?.into_iter().map(room).collect() })
}

impl Report for RoomList {
    fn text(&self, medium: Medium) -> String {
        if self.rooms.is_empty() {
            return "no rooms\n".to_owned();
        }
        let columns = [
            Text("ROOM"),
            Number("USERS"),
            Number("ANONYMOUS"),
            Number("PRESENCES"),
            Number("HELD"),
            Number("VERSION"),
        ];
        let row = |room: &ListedRoom| {
            let ListedRoom { room, version, users, anonymous, presences, held, .. } = room;
            let numbers = [*users, *anonymous, *presences, *held, version.0].map(|number| number.to_string());
            let [users, anonymous, presences, held, version] = numbers;
            [name(room.as_str()), users, anonymous, presences, held, version]
        };
        table(medium, columns, self.rooms.iter().map(row))
    }
}

#[derive(Debug, Serialize)]
pub(super) struct MemberList {
    room: RoomName,
    epoch: Option<Epoch>,
    version: Option<Version>,
    members: Vec<ListedMember>,
}

#[derive(Debug, Serialize)]
struct ListedMember {
    /// `None` for an anonymous socket.
    user: Option<UserId>,
    presences: Vec<ListedPresence>,
}

#[derive(Debug, Serialize)]
struct ListedPresence {
    id: PresenceId,
    channel: ChannelName,
    /// `None` if the node was removed between the two queries.
    node: Option<NodeName>,
    node_id: NodeId,
    held: bool,
    #[serde(serialize_with = "one_line")]
    meta: Meta,
}

fn one_line<S: Serializer>(meta: &Meta, serializer: S) -> Result<S::Ok, S::Error> {
    OneLine(meta).serialize(serializer)
}

/// A name as a table shows it.
fn name(text: &str) -> String {
    shortened(text, COLUMNS).into_owned()
}

/// The epoch and version of a room, and its roster at that version. A room that does not exist has an empty roster.
async fn roster(store: &SqlStore, room: &RoomName) -> Result<(Option<(Epoch, Version)>, Roster), Failure> {
    let Some(Snapshot { epoch, version, presences }) = store.load(room.clone()).await? else {
        return Ok((None, Roster::default()));
    };
    Ok((Some((epoch, version)), Roster::from(presences)))
}

pub(super) async fn members(store: &SqlStore, room: &RoomName) -> Result<MemberList, Failure> {
    let (position, roster) = roster(store, room).await?;
    let nodes: HashMap<NodeId, NodeName> = store.nodes().await?.into_iter().map(|row| (row.node, row.name)).collect();
    let presence = |presence: &Presence| ListedPresence {
        id: presence.id,
        channel: presence.channel.clone(),
        node: nodes.get(&presence.node).cloned(),
        node_id: presence.node,
        held: presence.held,
        meta: presence.meta.clone(),
    };
    let member = |member: Member| ListedMember {
        user: member.user().cloned(),
        presences: member.presences().iter().map(|one| presence(one)).collect(),
    };
    let (epoch, version) = position.unzip();
    Ok(MemberList { room: room.clone(), epoch, version, members: roster.members().into_iter().map(member).collect() })
}

impl Report for MemberList {
    fn text(&self, medium: Medium) -> String {
        if self.members.is_empty() {
            return "nobody is in this room\n".to_owned();
        }
        let columns = [Text("USER"), Text("NODE"), Text("STATE"), Text("ID"), Text("CHANNEL"), Text("META")];
        let rows = self.members.iter().flat_map(|ListedMember { user, presences }| {
            presences.iter().map(move |ListedPresence { id, channel, node, node_id, held, meta }| {
                [
                    user.as_ref().map_or_else(|| "(anonymous)".to_owned(), |user| name(user.as_str())),
                    node.as_ref().map_or_else(|| node_id.to_string(), |node| name(node.as_str())),
                    if *held { "held" } else { "here" }.to_owned(),
                    id.to_string(),
                    channel.to_string(),
                    shortened(&OneLine(meta).to_string(), COLUMNS).into_owned(),
                ]
            })
        });
        table(medium, columns, rows)
    }
}

#[derive(Debug, Serialize)]
pub(super) struct UserList {
    room: RoomName,
    users: Vec<ListedUser>,
    anonymous: usize,
}

#[derive(Debug, Serialize)]
struct ListedUser {
    user: UserId,
    presences: usize,
}

pub(super) async fn users(store: &SqlStore, room: &RoomName) -> Result<UserList, Failure> {
    let (_, roster) = roster(store, room).await?;
    let users = roster.by_user().map(|(user, own)| ListedUser { user: user.clone(), presences: own.len() });
    Ok(UserList { room: room.clone(), users: users.collect(), anonymous: roster.anonymous() })
}

impl Report for UserList {
    fn text(&self, medium: Medium) -> String {
        if self.users.is_empty() {
            return "no users\n".to_owned();
        }
        let row = |ListedUser { user, presences }: &ListedUser| [name(user.as_str()), presences.to_string()];
        table(medium, [Text("USER"), Number("PRESENCES")], self.users.iter().map(row))
    }
}

#[derive(Debug, Serialize)]
pub(super) struct NodeList {
    nodes: Vec<ListedNode>,
}

#[derive(Debug, Serialize)]
struct ListedNode {
    node: NodeName,
    node_id: NodeId,
    /// `None` for a node that an earlier version of this crate started.
    process: Option<String>,
    age_ms: u128,
    /// `live`, `expired` or `fenced`.
    state: &'static str,
    superseded: bool,
    /// Negative if the lease has expired, by so much. `None` if the node is fenced.
    lease_left_ms: Option<i128>,
    fenced_ms_ago: Option<u128>,
    presences: u64,
    held: u64,
}

pub(super) async fn nodes(store: &SqlStore) -> Result<NodeList, Failure> {
    Ok(NodeList { nodes: store.nodes().await?.into_iter().map(ListedNode::from).collect() })
}

impl From<NodeSummary> for ListedNode {
    fn from(NodeSummary { node, name, process, age, state, presences, held }: NodeSummary) -> Self {
        let signed = |time: Duration| i128::try_from(time.as_millis()).unwrap_or(i128::MAX);
        let (word, superseded, lease_left_ms, fenced_ms_ago) = match state {
            NodeState::Live { left } => ("live", false, Some(signed(left)), None),
            NodeState::Expired { since } => ("expired", false, Some(-signed(since)), None),
            NodeState::Fenced { since, superseded } => ("fenced", superseded, None, Some(since.as_millis())),
        };
        let age_ms = age.as_millis();
        Self {
            node: name,
            node_id: node,
            process,
            age_ms,
            state: word,
            superseded,
            lease_left_ms,
            fenced_ms_ago,
            presences,
            held,
        }
    }
}

impl Report for NodeList {
    fn text(&self, medium: Medium) -> String {
        if self.nodes.is_empty() {
            return "no nodes\n".to_owned();
        }
        let columns = [
            Text("NODE"),
            Text("STATE"),
            Text("LEASE"),
            Text("STARTED"),
            Number("PRESENCES"),
            Number("HELD"),
            Text("PROCESS"),
            Text("ID"),
        ];
        table(medium, columns, self.nodes.iter().map(ListedNode::row))
    }
}

impl ListedNode {
    fn row(&self) -> [String; 8] {
        let state = if self.superseded { "superseded" } else { self.state };
        let lease = match self.lease_left_ms {
            Some(left) if left >= 0 => format!("{} left", seconds(left.unsigned_abs())),
            Some(over) => format!("expired {} ago", seconds(over.unsigned_abs())),
            None => "-".to_owned(),
        };
        [
            self.node.to_string(),
            state.to_owned(),
            lease,
            format!("{} ago", seconds(self.age_ms)),
            self.presences.to_string(),
            self.held.to_string(),
            self.process.as_deref().map_or_else(|| "-".to_owned(), name),
            self.node_id.to_string(),
        ]
    }
}

/// A time for people: to the second, and in at most two units.
fn seconds(millis: u128) -> String {
    let seconds = u64::try_from(millis / 1000).unwrap_or(u64::MAX);
    let exact = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    exact.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_printed_in_at_most_two_units() {
        let printed = [0, 999, 61_000, 7_384_000, 90_061_000].map(seconds);
        assert_eq!(printed, ["0s", "0s", "1m 1s", "2h 3m", "1day 1h"]);
    }
}

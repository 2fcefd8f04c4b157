//! States and diffs in frames of a bounded size.
//!
//! A state or diff that fits is one frame. A larger state is a `presence.state` with the first members, followed by diffs that contain joins
//! only, and whose `from` and `version` are both the version of the state. A larger diff is parts whose `version` is the old one, and a last
//! part whose `version` is the new one. All frames but the last have `"more":true`. A client that ignores that key is right after the last
//! frame, since each frame continues the one before.

use std::{iter::Peekable, sync::Arc};

use bytes::{Bytes, BytesMut};
use serde::Serialize;

use crate::{
    model::{Delta, Meta, Presence},
    name::{Epoch, PresenceId, RoomName, UserId, Version},
};

use super::{
    FirstFrame, Frames, TEXT, View,
    held::Counted,
    me_tail,
    pages::{Pages, Rest},
    put_frame,
};

/// The fields of a frame besides its members, which go before and after them.
struct FrameFields<'a> {
    room: &'a RoomName,
    epoch: Epoch,
    from: Version,
    to: Version,
    anonymous: usize,
    more: bool,
}

impl<'a> FrameFields<'a> {
    fn new(view: &View<'a>, from: Version, to: Version, more: bool) -> Self {
        let (epoch, _) = view.position;
        Self { room: view.room, epoch, from, to, anonymous: view.roster.anonymous(), more }
    }

    /// Fields with the longest possible numbers, so that members that fit into it fit into every other frame of the room.
    fn longest(view: &View<'a>) -> Self {
        let longest = Version(u64::MAX);
        Self { anonymous: usize::MAX, ..Self::new(view, longest, longest, true) }
    }

    fn end(&self) -> String {
        format!(r#","anonymous":{}{}"#, self.anonymous, if self.more { r#","more":true"# } else { "" })
    }

    /// A state without its end, which is [`me_tail`].
    fn state(&self, members: &[u8]) -> Vec<u8> {
        let Self { epoch, to, .. } = self;
        let room = super::json(self.room);
        let head = format!(r#"{{"type":"presence.state","room":{room},"epoch":"{epoch}","version":{to},"members":["#);
        [head.as_bytes(), members, b"]", self.end().as_bytes()].concat()
    }

    /// The text before the members of a page.
    fn page(&self) -> Vec<u8> {
        let Self { epoch, from, to, .. } = self;
        let (room, end) = (super::json(self.room), self.end());
        format!(
            r#"{{"type":"presence.diff","room":{room},"epoch":"{epoch}","from":{from},"version":{to}{end},"leaves":[],"updates":[],"joins":["#
        )
        .into_bytes()
    }

    fn diff(&self, DiffLists { joins, leaves, updates }: &DiffLists) -> Vec<u8> {
        let Self { epoch, from, to, .. } = self;
        let room = super::json(self.room);
        let head = format!(
            r#"{{"type":"presence.diff","room":{room},"epoch":"{epoch}","from":{from},"version":{to},"joins":["#
        );
        let lists = [joins, &br#"],"leaves":["#[..], leaves, br#"],"updates":["#, updates, b"]"].concat();
        [head.as_bytes(), &lists, self.end().as_bytes(), b"}"].concat()
    }
}

/// The three lists of a diff as JSON, each without its brackets.
#[derive(Default)]
struct DiffLists {
    joins: Vec<u8>,
    leaves: Vec<u8>,
    updates: Vec<u8>,
}

/// Selects one of the lists.
type List = fn(&mut DiffLists) -> &mut Vec<u8>;

impl DiffLists {
    const fn len(&self) -> usize {
        self.joins.len() + self.leaves.len() + self.updates.len()
    }
}

#[derive(Serialize)]
struct ChangeElement<'a> {
    user: &'a UserId,
    id: PresenceId,
    meta: &'a Meta,
}

#[derive(Serialize)]
struct IdAndMeta<'a> {
    id: PresenceId,
    meta: &'a Meta,
}

fn write(json: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(json, value).expect("names, ids and metas serialize");
}

/// A presence as a JSON element of a diff; `None` if it has no user, since anonymous sockets are only counted.
pub(super) fn changed(presence: &Presence) -> Option<Vec<u8>> {
    let user = presence.user.as_ref()?;
    let mut json = Vec::new();
    write(&mut json, &ChangeElement { user, id: presence.id, meta: &presence.meta });
    Some(json)
}

pub(super) fn push(list: &mut Vec<u8>, element: &[u8]) {
    if !list.is_empty() {
        list.push(b',');
    }
    list.extend_from_slice(element);
}

/// Takes as many presences of users as fit into `room` bytes, but at least one, and returns them as the members of a state. The iterator
/// is sorted by user, so the presences of a user are next to each other.
fn members<'a>(named: &mut Peekable<impl Iterator<Item = &'a Arc<Presence>>>, room: usize) -> Vec<u8> {
    const CLOSING: &[u8] = b"]}";
    let mut members = Vec::new();
    let mut last: Option<&UserId> = None;
    let (mut user_part, mut presence_part) = (Vec::new(), Vec::new());
    while let Some(presence) = named.peek() {
        let Some(user) = &presence.user else { break };
        user_part.clear();
        presence_part.clear();
        if last == Some(user) {
            user_part.push(b',');
        } else {
            if last.is_some() {
                user_part.extend_from_slice(b"]},");
            }
            user_part.extend_from_slice(br#"{"user":"#);
            write(&mut user_part, user);
            user_part.extend_from_slice(br#","presences":["#);
        }
        write(&mut presence_part, &IdAndMeta { id: presence.id, meta: &presence.meta });
        let grown = members.len() + user_part.len() + presence_part.len() + CLOSING.len();
        if last.is_some() && grown > room {
            break;
        }
        members.extend_from_slice(&user_part);
        members.extend_from_slice(&presence_part);
        last = Some(user);
        named.next();
    }
    if last.is_some() {
        members.extend_from_slice(CLOSING);
    }
    members
}

/// The first frame with the whole state.
pub(super) fn state(view: &View<'_>, pages: &mut Pages) -> FirstFrame {
    let (_, version) = view.position;
    let tail = me_tail(PresenceId::from_uuid(uuid::Uuid::nil())).len();
    let longest = FrameFields::longest(view);
    let mut named = view.roster.named().peekable();
    let first = members(&mut named, view.max_frame.saturating_sub(longest.state(&[]).len() + tail));
    let fields = |more| FrameFields::new(view, version, version, more);
    let state = fields(named.peek().is_some()).state(&first);
    let mut shared = Vec::with_capacity(state.len() + 10);
    put_frame(&mut shared, TEXT, &state, tail);
    let shared = Bytes::from_owner(Counted::new(shared, pages.held()));
    let all = pages.of(&mut named, view.max_frame.saturating_sub(longest.page().len()));
    let rest = Rest::new(fields(true).page(), fields(false).page(), all);
    pages.set_size(shared.len() + rest.as_ref().map_or(0, |rest| rest.bytes()));
    FirstFrame { shared, names_joiner: true, rest }
}

/// The diff from version `from`. Leaves come first: a presence that changed its user leaves and joins under the same id, and a client that
/// applies the parts in order must not apply the leave last.
pub(super) fn diff(view: &View<'_>, from: Version, delta: &Delta) -> Frames {
    let (_, to) = view.position;
    let space = view.max_frame.saturating_sub(FrameFields::longest(view).diff(&DiffLists::default()).len());
    let mut bytes = BytesMut::new();
    let mut part = DiffLists::default();
    let lists: [(_, List); 3] = [
        (&delta.left, |part| &mut part.leaves),
        (&delta.joined, |part| &mut part.joins),
        (&delta.updated, |part| &mut part.updates),
    ];
    for (presences, list) in lists {
        for element in presences.iter().filter_map(|presence| changed(presence)) {
            if part.len() > 0 && part.len() + 1 + element.len() > space {
                let full = std::mem::take(&mut part);
                put_frame(&mut bytes, TEXT, &FrameFields::new(view, from, from, true).diff(&full), 0);
            }
            push(list(&mut part), &element);
        }
    }
    put_frame(&mut bytes, TEXT, &FrameFields::new(view, from, to, false).diff(&part), 0);
    // All parts together count as one notice.
    Frames { bytes: bytes.freeze(), count: 1 }
}

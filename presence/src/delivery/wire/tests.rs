//! Frames of a bounded size, and what a client makes of them that knows nothing of the bound.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use serde_json::Value;
use uuid::Uuid;

use super::*;
use crate::{
    config::LEAST_FRAME_SENT,
    model::{
        Meta, Presence,
        delta::NetChanges,
        tests::truth::{channel, epoch, id},
    },
    name::NodeId,
};

/// The payloads of these frames.
fn payloads(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut payloads = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        assert_eq!(*first, 0x81, "a whole text, unmasked");
        let width = match second {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let (extended, rest) = rest.split_at(width);
        let extended = extended.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        let (payload, rest) = rest.split_at(if width == 0 { usize::from(*second) } else { extended });
        payloads.push(payload);
        bytes = rest;
    }
    assert!(bytes.is_empty(), "{bytes:?}");
    payloads
}

/// The frames as JSON, each of which has at most `max` bytes.
fn values(bytes: &[u8], max: usize) -> Vec<Value> {
    let bounded = payloads(bytes).into_iter().inspect(|payload| assert!(payload.len() <= max, "{}", payload.len()));
    bounded.map(|payload| serde_json::from_slice(payload).unwrap()).collect()
}

/// All that a joiner gets first.
fn first_bytes(first: &FirstFrame, me: PresenceId) -> Vec<u8> {
    let (shared, tail, mut rest) = first.pieces(me);
    let mut bytes = [&shared[..], tail.as_deref().unwrap_or_default()].concat();
    while let Some((head, body)) = rest.as_mut().and_then(Rest::take) {
        bytes.extend(head.into_iter().chain([body]).flatten());
    }
    bytes
}

/// A client that was written before there were parts.
#[derive(Debug, Default, PartialEq)]
struct WholeFrameClient {
    version: u64,
    anonymous: u64,
    members: BTreeMap<String, (String, Value)>,
}

fn text_of(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("`{key}` in {value}")).to_owned()
}

impl WholeFrameClient {
    fn gets(&mut self, frame: &Value) {
        let list = |key: &str| frame[key].as_array().unwrap().iter();
        if frame["type"] == "presence.state" {
            self.members.clear();
            for member in list("members") {
                for presence in member["presences"].as_array().unwrap() {
                    let look = (text_of(member, "user"), presence["meta"].clone());
                    assert_eq!(self.members.insert(text_of(presence, "id"), look), None);
                }
            }
        } else {
            assert_eq!(frame["from"], self.version, "each frame continues the one before");
            for one in list("leaves") {
                assert!(self.members.remove(&text_of(one, "id")).is_some(), "{one} was here");
            }
            for one in list("joins") {
                let before = self.members.insert(text_of(one, "id"), (text_of(one, "user"), one["meta"].clone()));
                assert_eq!(before, None, "{one} was not here");
            }
            for one in list("updates") {
                let look = (text_of(one, "user"), one["meta"].clone());
                assert!(self.members.insert(text_of(one, "id"), look).is_some(), "{one} was here");
            }
        }
        self.version = frame["version"].as_u64().unwrap();
        self.anonymous = frame["anonymous"].as_u64().unwrap();
    }

    /// What a client knows that has the roster at this version.
    fn knowing(view: &View<'_>) -> Self {
        let named = view.roster.named().map(|one| {
            let meta = serde_json::from_str(one.meta.as_str()).unwrap();
            (one.id.to_string(), (one.user.as_ref().unwrap().to_string(), meta))
        });
        let (version, anonymous) = (view.position.1.0, view.roster.anonymous() as u64);
        Self { version, anonymous, members: named.collect() }
    }
}

/// Frames of one state or one diff: all but the last announce that there are more, and stay at the version that was.
fn are_parts(frames: &[Value], from: u64, to: u64) {
    let (last, parts) = frames.split_last().unwrap();
    for part in parts {
        assert_eq!((&part["more"], &part["version"]), (&Value::Bool(true), &from.into()));
    }
    assert_eq!((&last["more"], &last["version"]), (&Value::Null, &to.into()));
}

/// Text that JSON makes up to twice as long, in names; `length` is its length in bytes.
fn name(alphabet: u8, length: usize) -> String {
    let piece = ["x", "\"", "\\", "é", "🦀"][usize::from(alphabet) % 5];
    let mut name = piece.repeat(length / piece.len());
    name.extend(std::iter::repeat_n('y', length - name.len()));
    name
}

fn meta(length: usize) -> Meta {
    let empty = r#"{"a":"\u0000"}"#;
    match length.checked_sub(empty.len()) {
        None => Meta::default(),
        Some(rest) => Meta::from_json(&empty.replace(r#"00""#, &format!(r#"00{}""#, "z".repeat(rest)))).unwrap(),
    }
}

#[derive(Debug, Clone, Copy)]
struct MemberLook {
    /// The alphabet, and the length; `None` for an anonymous socket.
    user: Option<(u8, usize)>,
    meta: usize,
}

fn length(most: usize) -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1..20_usize, 2 => 1..=most, 1 => Just(most)]
}

fn looks() -> impl Strategy<Value = BTreeMap<u8, MemberLook>> {
    // Few names, so that some users have several presences.
    let user = prop::option::weighted(0.9, (0..5_u8, length(255)));
    let look = (user, length(4096)).prop_map(|(user, meta)| MemberLook { user, meta });
    prop::collection::btree_map(any::<u8>(), look, 0..60)
}

/// Users with long names and nothing else, so that a list of them is often larger than a small frame.
fn crowds() -> impl Strategy<Value = BTreeMap<u8, MemberLook>> {
    let look = (0..5_u8, 150..=255_usize).prop_map(|user| MemberLook { user: Some(user), meta: 0 });
    prop::collection::btree_map(any::<u8>(), look, 0..100)
}

fn roster(looks: &BTreeMap<u8, MemberLook>) -> Roster {
    let presence = |(n, look): (&u8, &MemberLook)| {
        let user = look.user.map(|(alphabet, length)| UserId::new(name(alphabet, length)).unwrap());
        let presence = Presence::new(id(*n), channel(*n), user, NodeId::from_uuid(Uuid::nil()));
        Arc::new(Presence { meta: meta(look.meta), ..presence })
    };
    let mut roster = Roster::default();
    let _ = roster.apply(&Delta { joined: looks.iter().map(presence).collect(), ..Delta::default() });
    roster
}

fn view<'a>(notify: Notify, max_frame: usize, room: &'a RoomName, version: u64, roster: &'a Roster) -> View<'a> {
    View { notify, max_frame, room, position: (epoch(1), Version(version)), roster }
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![Just(LEAST_FRAME_SENT), LEAST_FRAME_SENT..70_000]
}

proptest! {
    #[test]
    fn pages_and_the_parts_of_diffs_give_the_roster_at_each_version_and_no_frame_is_too_large(
        (before, after) in (looks(), looks()),
        (alphabet, room) in (0..5_u8, length(255)),
        max in sizes(),
    ) {
        let room = RoomName::new(name(alphabet, room)).unwrap();
        let (before, after) = (roster(&before), roster(&after));
        let (earlier, now) = (view(Notify::Diff, max, &room, 7, &before), view(Notify::Diff, max, &room, 9, &after));
        let mut client = WholeFrameClient::default();

        let (me, mut waiting) = (id(0), Pages::default());
        let first = earlier.first(None, &mut waiting).unwrap();
        let pages = values(&first_bytes(&first, me), max);
        are_parts(&pages, 7, 7);
        prop_assert_eq!(text_of(&pages[0], "me"), me.to_string());
        for page in &pages {
            prop_assert_eq!(page["anonymous"].as_u64().unwrap(), before.anonymous() as u64);
        }
        for page in &pages[1..] {
            prop_assert!(page["leaves"].as_array().unwrap().is_empty() && page["updates"].as_array().unwrap().is_empty());
        }
        pages.iter().for_each(|page| client.gets(page));
        prop_assert_eq!(&client, &WholeFrameClient::knowing(&earlier));

        let mut net = NetChanges::default();
        net.add(after.changes_since(&before));
        let delta = net.take();
        let parts = values(&now.notice(Version(7), &delta).unwrap().bytes, max);
        are_parts(&parts, 7, 9);
        parts.iter().for_each(|part| client.gets(part));
        prop_assert_eq!(&client, &WholeFrameClient::knowing(&now));

        // One who joins then shares pages with the one who still waits.
        let mut grown = before.clone();
        let gone = delta.left.iter().filter(|gone| after.get(gone.id).is_none());
        let _ = grown.apply(&Delta { left: gone.cloned().collect(), ..delta.clone() });
        let now = view(Notify::Diff, max, &room, 9, &grown);
        let next = now.first(None, &mut waiting).unwrap();
        let mut newcomer = WholeFrameClient::default();
        let pages = values(&first_bytes(&next, me), max);
        are_parts(&pages, 9, 9);
        pages.iter().for_each(|page| newcomer.gets(page));
        prop_assert_eq!(newcomer, client);
        let held = waiting.held().clone();
        prop_assert!(held.bytes() >= waiting.size() / 2 && held.everywhere() == held.bytes());
        drop((first, next));
        prop_assert_eq!((held.bytes(), held.everywhere()), (0, 0));
    }

    #[test]
    fn a_list_has_as_many_users_as_fit_and_says_how_many_it_omits(looks in prop_oneof![looks(), crowds()], max in sizes()) {
        let (room, roster) = (RoomName::new("lobby").unwrap(), roster(&looks));
        let bytes = view(Notify::List, max, &room, 1, &roster).list().bytes;
        let frames = values(&bytes, max);
        let [list] = &frames[..] else { panic!("{} frames", frames.len()) };
        let payload = &list["payload"];
        let listed: Vec<_> = payload["members"].as_array().unwrap().iter().map(|user| user.as_str().unwrap()).collect();
        let users: Vec<_> = roster.by_user().map(|(user, _)| user.as_str()).collect();
        prop_assert_eq!(&listed[..], &users[..listed.len()], "the first of them");
        let omitted = payload.get("omitted").map_or(0, |omitted| omitted.as_u64().unwrap());
        prop_assert_eq!(omitted, (users.len() - listed.len()) as u64);
        prop_assert_eq!(omitted > 0, payload.get("omitted").is_some());
        prop_assert_eq!(&payload["lurkers"], roster.anonymous());
        if let Some(next) = users.get(listed.len()) {
            // The number may be shorter by two digits than it was taken for.
            prop_assert!(payloads(&bytes)[0].len() + 1 + json(next).len() + 2 > max, "the next one would fit");
        }
    }

    #[test]
    fn a_list_that_is_too_large_for_who_joins_in_the_mode_events_goes_on_in_events(looks in prop_oneof![looks(), crowds()], max in sizes()) {
        let (room, roster) = (RoomName::new("lobby").unwrap(), roster(&looks));
        let first = view(Notify::Events, max, &room, 1, &roster).first(None, &mut Pages::default()).unwrap();
        let frames = values(&first_bytes(&first, id(0)), max);
        let (list, joins) = frames.split_first().unwrap();
        let members = list["payload"]["members"].as_array().unwrap();
        let mut known: Vec<_> = members.iter().map(|user| user.as_str().unwrap().to_owned()).collect();
        prop_assert_eq!(list["payload"].get("omitted"), None);
        for join in joins {
            prop_assert_eq!(&join["type"], "join");
            known.push(text_of(join, "user"));
        }
        let users: Vec<_> = roster.by_user().map(|(user, _)| user.to_string()).collect();
        prop_assert_eq!(known, users);
    }
}

/// The most that one presence takes, with the least bytes that a frame may be bounded to.
#[test]
fn a_presence_with_the_longest_name_and_the_largest_meta_fits_into_the_smallest_frame() {
    let room = RoomName::new("\"".repeat(255)).unwrap();
    let look = MemberLook { user: Some((1, 255)), meta: crate::model::meta::MAX_META_BYTES };
    let roster = roster(&[(1, look), (2, look)].into());
    let view = view(Notify::Diff, LEAST_FRAME_SENT, &room, u64::MAX, &roster);
    let pages = values(&first_bytes(&view.first(None, &mut Pages::default()).unwrap(), id(1)), LEAST_FRAME_SENT);
    assert_eq!(pages.len(), 2, "one for each");
    let delta = Delta { updated: roster.named().cloned().collect(), ..Delta::default() };
    assert_eq!(values(&view.notice(Version(u64::MAX), &delta).unwrap().bytes, LEAST_FRAME_SENT).len(), 2);
}

/// A presence with a name and an id of its own, `n`th in the order of names.
fn named(n: usize) -> Arc<Presence> {
    let user = UserId::new(format!("{n:08}-{}", "x".repeat(200))).unwrap();
    // The ids decide where pages begin. Random ones would make the numbers below differ from run to run.
    let id = PresenceId::from_uuid(Uuid::from_u128(n as u128));
    Arc::new(Presence::new(id, channel(0), Some(user), NodeId::from_uuid(Uuid::nil())))
}

#[test]
fn joiners_who_come_one_after_the_other_and_do_not_read_share_what_did_not_change() {
    const MAX: usize = 32_000;
    let (room, mut roster, mut pages) = (RoomName::new("lobby").unwrap(), Roster::default(), Pages::default());
    let joined = (0..4_000).map(|n| named(n * 100)).collect();
    let _ = roster.apply(&Delta { joined, ..Delta::default() });
    let mut unread = Vec::new();
    for n in 0..100 {
        // Now here, now there, and at last all at one place.
        let place = if n < 50 { n * 7_919 + 3 } else { 200_000 + n };
        let _ = roster.apply(&Delta { joined: vec![named(place)], ..Delta::default() });
        unread.push(view(Notify::Diff, MAX, &room, n as u64, &roster).first(None, &mut pages).unwrap());
    }
    let (held, one) = (pages.held().clone(), pages.size());
    assert!(one > 1_000_000, "{one}");
    // Each has a first frame and two pages of its own, and here and there a third.
    assert!(held.bytes() < one + 100 * 3 * MAX, "{} bytes are held, and {one} is one state", held.bytes());
    let last = unread.last().unwrap().rest.as_ref().unwrap();
    assert!(last.pages().len() < 4 * one / MAX, "{} pages", last.pages().len());
    drop(unread);
    assert_eq!(held.bytes(), 0);
}

#[test]
fn what_fits_into_one_frame_is_as_it_was_before_there_were_parts() {
    let look = MemberLook { user: Some((0, 1)), meta: 0 };
    let (room, roster) = (RoomName::new("lobby").unwrap(), roster(&[(1, look), (2, look)].into()));
    let view = view(Notify::Diff, LEAST_FRAME_SENT, &room, 4, &roster);
    let state = first_bytes(&view.first(None, &mut Pages::default()).unwrap(), id(1));
    let (e, one, two) = (epoch(1), id(1), id(2));
    let [state] = payloads(&state)[..] else { panic!("one frame") };
    assert_eq!(
        std::str::from_utf8(state).unwrap(),
        format!(
            r#"{{"type":"presence.state","room":"lobby","epoch":"{e}","version":4,"members":[{{"user":"x","presences":[{{"id":"{one}","meta":{{}}}},{{"id":"{two}","meta":{{}}}}]}}],"anonymous":0,"me":"{one}"}}"#
        )
    );
    let delta = Delta { joined: roster.named().take(1).cloned().collect(), ..Delta::default() };
    let diff = view.notice(Version(3), &delta).unwrap().bytes;
    let [diff] = payloads(&diff)[..] else { panic!("one frame") };
    assert_eq!(
        std::str::from_utf8(diff).unwrap(),
        format!(
            r#"{{"type":"presence.diff","room":"lobby","epoch":"{e}","from":3,"version":4,"joins":[{{"user":"x","id":"{one}","meta":{{}}}}],"leaves":[],"updates":[],"anonymous":0}}"#
        )
    );
}

#[test]
fn a_list_is_encoded_once_for_the_members_and_for_those_who_join_with_it() {
    let (room, roster) = (RoomName::new("lobby").unwrap(), Roster::default());
    let view = view(Notify::List, LEAST_FRAME_SENT, &room, 0, &roster);
    let first = |notice| view.first(notice, &mut Pages::default()).unwrap().shared;
    let notice = view.list();
    assert_eq!(first(Some(&notice)).as_ptr(), notice.bytes.as_ptr());
    assert_eq!(first(None), notice.bytes, "also if there is no notice");
}

#[test]
fn the_size_of_a_message_is_that_of_its_payload() {
    for bytes in [0, 1, 125, 126, 65_535, 65_536] {
        assert_eq!(payload_len(&text(&"x".repeat(bytes))), bytes);
        assert_eq!(payload_len(&binary(&vec![0; bytes])), bytes);
    }
}

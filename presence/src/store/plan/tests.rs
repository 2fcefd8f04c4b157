//! One room with one presence, and what is planned for it.

use super::*;
use crate::model::Meta;

fn presence(channel: &str) -> Presence {
    Presence::new(PresenceId::random(), ChannelName::new(channel).unwrap(), None, NodeId::random())
}

fn session(n: u8) -> Session {
    Session { hash: SessionHash::from_bytes([n; 32]), grace: Duration::from_secs(10) }
}

/// One presence exists, with the token of session 1.
fn find(room: Epoch, there: &Presence) -> Existing {
    let found = StoredPresence { room, presence: Arc::new(there.clone()) };
    Existing {
        presences: HashMap::from([(there.id, found)]),
        sessions: HashMap::from([(session(1).hash, there.id)]),
        sizes: HashMap::from([(room, 1)]),
    }
}

fn all_planned(there: &Presence, writes: &[Write]) -> Plan {
    let room = Epoch::random();
    plan(there.node, room, writes, &find(room, there)).unwrap()
}

fn planned(there: &Presence, write: Write) -> Plan {
    all_planned(there, &[write])
}

#[test]
fn a_repeated_join_changes_nothing() {
    let there = presence("a");
    let plan = planned(&there, Write::Join(Arc::new(there.clone())));
    assert!(plan.take_over.is_empty() && plan.delta.is_empty());
}

#[test]
fn a_resume_changes_the_row_and_gives_no_version() {
    let held = Presence { held: true, meta: Meta::from_json(r#"{"busy":true}"#).unwrap(), ..presence("a") };
    let socket = Presence { node: held.node, ..presence("b") };
    let resume = Write::Resume { presence: Arc::new(socket.clone()), session: session(1) };
    let plan = planned(&held, resume);
    let back = Arc::new(Presence { channel: ChannelName::new("b").unwrap(), held: false, ..held.clone() });
    assert_eq!(plan.take_over, [(back.clone(), Some(session(1)))]);
    assert_eq!(plan.resumed, [Resumed { requested: socket.id, presence: back }]);
    assert!(!plan.is_new_version());
}

#[test]
fn each_change_of_the_node_of_a_presence_gives_a_version() {
    let (room, node) = (Epoch::random(), NodeId::random());
    for held in [false, true] {
        let there = Presence { held, ..presence("a") };
        let resume = Write::Resume { presence: Arc::new(presence("b")), session: session(1) };
        let again = Arc::new(Presence { held: false, ..there.clone() });
        let restore = Write::Restore { presence: again.clone(), session: session(1) };
        for (write, channel) in [(resume, "b"), (restore, "a"), (Write::Join(again), "a")] {
            let plan = plan(node, room, &[write], &find(room, &there)).unwrap();
            let channel = ChannelName::new(channel).unwrap();
            let now = Arc::new(Presence { channel, node, held: false, ..there.clone() });
            assert_eq!(plan.delta, Delta { moved: vec![now], ..Delta::default() });
        }
    }
}

#[test]
fn a_presence_whose_meta_and_node_change_in_one_commit_has_both() {
    let (room, node, there) = (Epoch::random(), NodeId::random(), presence("a"));
    let busy = Meta::from_json(r#"{"busy":true}"#).unwrap();
    let channel = there.channel.clone();
    let update = Write::Update { id: there.id, channel, user: None, meta: Some(busy.clone()) };
    let resume = Write::Resume { presence: Arc::new(presence("b")), session: session(1) };
    let plan = plan(node, room, &[update, resume], &find(room, &there)).unwrap();
    let now = Presence { channel: ChannelName::new("b").unwrap(), node, meta: busy, ..there };
    assert_eq!(plan.delta, Delta { updated: vec![Arc::new(now)], ..Delta::default() });
}

#[test]
fn a_token_of_a_presence_that_leaves_in_the_same_commit_adds_a_new_presence() {
    let there = presence("a");
    let socket = Arc::new(presence("b"));
    let resume = Write::Resume { presence: socket.clone(), session: session(1) };
    let leave = Write::Leave { id: there.id, channel: there.channel.clone() };
    let plan = all_planned(&there, &[resume, leave]);
    assert_eq!((plan.delete.as_slice(), plan.insert.len(), plan.resumed.len()), ([there.id].as_slice(), 1, 0));
    assert_eq!((plan.delta.left.len(), plan.delta.joined[0].id), (1, socket.id));
}

#[test]
fn a_token_of_a_presence_whose_user_changes_in_the_same_commit_adds_a_new_presence() {
    let there = presence("a");
    let socket = Arc::new(presence("b"));
    let resume = Write::Resume { presence: socket.clone(), session: session(1) };
    let user = Some(Some(crate::name::UserId::new("eve").unwrap()));
    let update = Write::Update { id: there.id, channel: there.channel.clone(), user, meta: None };
    let plan = all_planned(&there, &[resume, update]);
    assert_eq!((plan.take_over.len(), plan.take_over[0].1, plan.insert.len(), plan.resumed.len()), (1, None, 1, 0));
    assert_eq!((plan.take_over[0].0.id, plan.insert[0].1), (there.id, Some(session(1))));
}

#[test]
fn a_presence_that_is_held_and_resumed_in_one_commit_is_not_held_and_keeps_its_last_meta() {
    let there = presence("a");
    let meta = Meta::from_json(r#"{"busy":true}"#).unwrap();
    for first in [
        Write::Hold { id: there.id, channel: there.channel.clone(), grace: Duration::from_secs(1) },
        Write::Update { id: there.id, channel: there.channel.clone(), user: None, meta: Some(meta.clone()) },
    ] {
        let busy = matches!(first, Write::Update { .. });
        let resume = Write::Resume { presence: Arc::new(presence("b")), session: session(1) };
        let plan = all_planned(&there, &[resume, first]);
        assert_eq!(plan.take_over.len(), 1);
        assert!(plan.set_meta.is_empty() && !plan.take_over[0].0.held);
        assert_eq!(plan.take_over[0].0.meta == meta, busy);
    }
}

#[test]
fn limited_joins_are_admitted_last_and_in_the_order_of_ids() {
    let there = presence("there");
    let limited =
        |presence: &Arc<Presence>, session| Write::JoinWithin { presence: presence.clone(), session, limit: 2 };
    let [plain, first, second, third] = ["a", "b", "c", "d"].map(|channel| Arc::new(presence(channel)));
    let leave = Write::Leave { id: there.id, channel: there.channel.clone() };
    let last = [limited(&third, None), limited(&second, Some(session(2))), limited(&first, None)];
    let plan = all_planned(&there, &[&last[..], &[leave, Write::Join(plain.clone())]].concat());
    let new: Vec<_> = plan.insert.iter().map(|(presence, _)| presence.id).collect();
    assert_eq!((new, plan.refused), (vec![plain.id, first.id], vec![second.id, third.id]));
}

#[test]
fn a_resume_needs_no_place() {
    let there = presence("there");
    let (back, guest) = (Arc::new(presence("back")), Arc::new(presence("guest")));
    let back = Write::JoinWithin { presence: back, session: Some(session(1)), limit: 1 };
    let guest = Write::JoinWithin { presence: guest, session: Some(session(2)), limit: 1 };
    let plan = all_planned(&there, &[guest.clone(), back]);
    assert_eq!((plan.take_over[0].0.id, plan.insert.len(), plan.refused), (there.id, 0, vec![guest.id()]));
}

#[test]
fn a_commit_may_have_each_token_once() {
    let room = Epoch::random();
    let resume = || Write::Resume { presence: Arc::new(presence("b")), session: session(2) };
    let planned = plan(NodeId::random(), room, &[resume(), resume()], &Existing::default());
    assert!(matches!(planned, Err(InvalidWrites::SessionTwice(_))));
}

#[test]
fn a_commit_may_not_resume_a_presence_by_its_token_and_restore_it_with_another_token() {
    // Which of the two had the presence afterwards depended on the store.
    let (there, room) = (presence("there"), Epoch::random());
    let resume = Write::Resume { presence: Arc::new(presence("back")), session: session(1) };
    let moved = Arc::new(Presence { user: Some(UserId::new("other").unwrap()), ..there.clone() });
    let restore = Write::Restore { presence: moved, session: session(2) };
    for writes in [[resume.clone(), restore.clone()], [restore, resume]] {
        let planned = plan(there.node, room, &writes, &find(room, &there));
        assert!(matches!(planned, Err(InvalidWrites::SessionTwice(_))), "{planned:?}");
    }
}

#[test]
fn a_restored_socket_does_not_take_its_presence_back_from_the_socket_that_resumed_it() {
    let there = presence("new");
    let late = Arc::new(Presence { channel: ChannelName::new("old").unwrap(), ..there.clone() });
    for write in [Write::Join(late.clone()), Write::Restore { presence: late, session: session(1) }] {
        let plan = planned(&there, write);
        assert!(plan.take_over.is_empty() && plan.insert.is_empty() && plan.delta.is_empty());
        let theirs = Resumed { requested: there.id, presence: Arc::new(there.clone()) };
        assert_eq!(plan.resumed, [theirs]);
    }
    let other = Write::Restore { presence: Arc::new(presence("older")), session: session(1) };
    assert_eq!(planned(&there, other).resumed[0].presence.id, there.id, "it was resumed as another presence");
}

#[test]
fn a_restored_presence_stays_without_a_token_that_another_presence_has() {
    let (room, other, there) = (Epoch::random(), presence("a"), presence("b"));
    let mut found = find(room, &other);
    found.presences.insert(there.id, StoredPresence { room, presence: Arc::new(there.clone()) });
    let restore = Write::Restore { presence: Arc::new(there.clone()), session: session(1) };
    let node = NodeId::random();
    let plan = plan(node, room, &[restore], &found).unwrap();
    let now = Arc::new(Presence { node, ..there });
    assert_eq!(plan.take_over, [(now.clone(), None)]);
    assert_eq!(plan.delta, Delta { moved: vec![now], ..Delta::default() });
    assert!(plan.resumed.is_empty() && plan.insert.is_empty());
}

#[test]
fn a_presence_whose_user_is_set_loses_its_token() {
    let there = presence("a");
    let user = Some(Some(crate::name::UserId::new("ann").unwrap()));
    let update = Write::Update { id: there.id, channel: there.channel.clone(), user, meta: None };
    assert_eq!(planned(&there, update).take_over[0].1, None);
}

#[test]
fn the_meta_of_a_repeated_join_replaces_the_old_one() {
    let there = presence("a");
    let busy = Presence { meta: Meta::from_json(r#"{"busy":true}"#).unwrap(), ..there.clone() };
    let plan = planned(&there, Write::Join(Arc::new(busy.clone())));
    assert_eq!(plan.delta.updated, [Arc::new(busy)]);
}

#[test]
fn another_user_is_an_update_and_keeps_the_meta() {
    let there = Presence { meta: Meta::from_json(r#"{"busy":true}"#).unwrap(), ..presence("a") };
    let ann = crate::name::UserId::new("ann").unwrap();
    let user = Some(Some(ann.clone()));
    let update = Write::Update { id: there.id, channel: there.channel.clone(), user, meta: None };
    let plan = planned(&there, update);
    assert_eq!(plan.delta.updated, [Arc::new(Presence { user: Some(ann), ..there })]);
}

#[test]
fn a_presence_is_in_one_room_only() {
    let there = presence("a");
    let found = find(Epoch::random(), &there);
    let planned = plan(there.node, Epoch::random(), &[Write::Join(Arc::new(there.clone()))], &found);
    assert!(matches!(planned, Err(InvalidWrites::OtherRoom(id)) if id == there.id));
}

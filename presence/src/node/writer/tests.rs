//! What goes into which transaction.

use std::{sync::Arc, time::Duration};

use actix::{Actor, Context, Handler, Recipient};

use super::{
    Committed, MOST_OF_ONE, Writer,
    merge::{Change, Tried},
    queue::{BATCH, Haste, Queue, Submitted, Work},
};
use crate::{
    clock::Tick,
    model::{Meta, Presence},
    name::{ChannelName, NodeId, PresenceId, RoomName},
    node::health::Health,
    session::{Session, SessionHash},
    store::Write,
    store::pace::MOST_ROOMS,
};

struct Room;

impl Actor for Room {
    type Context = Context<Self>;
}

impl Handler<Committed> for Room {
    type Result = ();

    fn handle(&mut self, _: Committed, _: &mut Self::Context) {}
}

fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

fn join(channel: &str) -> Write {
    let channel = ChannelName::new(channel).unwrap();
    Write::Join(Arc::new(Presence::new(PresenceId::random(), channel, None, NodeId::random())))
}

fn leave(channel: &str) -> Write {
    Write::Leave { id: PresenceId::random(), channel: ChannelName::new(channel).unwrap() }
}

/// A queue, and the room actor that all its changes come from.
struct Bench {
    queue: Queue,
    actor: Recipient<Committed>,
}

impl Bench {
    fn new() -> Self {
        Self { queue: Queue::default(), actor: Room.start().recipient() }
    }

    fn add(&mut self, name: &str, write: Write, haste: Haste) -> Submitted {
        self.queue.add(&room(name), &self.actor, Change { write, tried: Tried::No }, haste)
    }

    fn prune(&mut self, name: &str, count: usize) {
        for n in 0..count {
            self.add(name, leave(&format!("{name}{n}")), Haste::Pruned);
        }
    }

    fn next(&mut self) -> Vec<(String, Vec<Write>)> {
        let Work::Changes(batch) = self.queue.next(Tick(0), Duration::ZERO, true) else { return Vec::new() };
        batch.writes.into_iter().map(|of| (of.room.to_string(), of.writes)).collect()
    }

    fn sizes(&mut self) -> Vec<(String, usize)> {
        self.next().into_iter().map(|(room, writes)| (room, writes.len())).collect()
    }
}

#[actix::test]
async fn a_room_in_which_more_waits_than_one_transaction_takes_is_written_in_several() {
    // They went into one, however many: it took longer than its time-out, and so was tried for ever.
    let mut bench = Bench::new();
    for n in 0..2 * BATCH + 5 {
        bench.add("large", join(&n.to_string()), Haste::Asked);
    }
    bench.add("small", join("s"), Haste::Asked);
    let sizes: Vec<_> = std::iter::from_fn(|| Some(bench.sizes()).filter(|sizes| !sizes.is_empty())).collect();
    let (large, small) = ("large".to_owned(), "small".to_owned());
    assert_eq!(sizes, [vec![(large.clone(), BATCH)], vec![(large.clone(), BATCH)], vec![(large, 5), (small, 1)]]);
    assert_eq!(bench.queue.pending(), 0);
}

#[actix::test]
async fn what_is_asked_while_many_are_pruned_goes_into_the_very_next_transaction() {
    // It waited for all that was pruned before it.
    let mut bench = Bench::new();
    for n in 0..1_000 {
        bench.prune(&format!("room {n}"), 100);
    }
    let sum = |sizes: &[(String, usize)]| sizes.iter().map(|(_, size)| size).sum::<usize>();
    for expected in [BATCH, 2 * BATCH, 4 * BATCH] {
        assert_eq!(sum(&bench.sizes()), expected, "nobody waits, and the one before was quick");
        bench.queue.written(Duration::ZERO);
    }
    bench.add("lobby", join("ann"), Haste::Asked);
    bench.add("room 999", join("bob"), Haste::Asked);
    let next = bench.sizes();
    assert_eq!(next[..2], [("lobby".to_owned(), 1), ("room 999".to_owned(), 1)]);
    assert_eq!(sum(&next), BATCH);
    assert_eq!(bench.queue.pending(), 100_002 - 8 * BATCH);
    bench.queue.written(Duration::ZERO);
    assert_eq!(sum(&bench.sizes()), BATCH, "from the beginning");
    bench.queue.not_written(false);
    assert_eq!(sum(&bench.sizes()), BATCH / 2, "it may have been too large");
}

#[actix::test]
async fn those_who_are_pruned_have_a_quarter_of_each_transaction_however_much_is_asked() {
    let mut bench = Bench::new();
    bench.prune("pruned", BATCH);
    for n in 0..4 * BATCH {
        bench.add("busy", join(&n.to_string()), Haste::Asked);
    }
    for _ in 0..4 {
        let quarter = ("pruned".to_owned(), BATCH / 4);
        assert_eq!(bench.sizes(), [("busy".to_owned(), BATCH - BATCH / 4), quarter]);
    }
    assert_eq!(bench.sizes(), [("busy".to_owned(), BATCH)]);
}

#[actix::test]
async fn while_it_is_not_the_turn_of_those_who_are_pruned_only_what_is_asked_goes_on() {
    let mut bench = Bench::new();
    bench.prune("lobby", 3);
    let not_now = |bench: &mut Bench| match bench.queue.next(Tick(0), Duration::ZERO, false) {
        Work::Changes(batch) => batch.writes.iter().map(|of| of.writes.len()).sum(),
        Work::Nothing { touches_in: None } => 0,
        _ => panic!("nobody was touched"),
    };
    assert_eq!(not_now(&mut bench), 0);
    for n in 0..BATCH {
        bench.add("lobby", join(&n.to_string()), Haste::Asked);
    }
    assert_eq!(not_now(&mut bench), BATCH, "all of a transaction");
    assert_eq!((bench.queue.pending(), bench.sizes()), (3, vec![("lobby".to_owned(), 3)]));
}

#[actix::test]
async fn a_room_that_asks_and_prunes_is_named_once_in_a_transaction() {
    let mut bench = Bench::new();
    bench.prune("lobby", 3);
    bench.add("lobby", join("ann"), Haste::Asked);
    assert_eq!(bench.sizes(), [("lobby".to_owned(), 4)]);
}

#[actix::test]
async fn a_channel_that_is_pruned_and_joins_anew_leaves_before_it_joins() {
    // Else the room would have two presences of one channel, which the database refuses.
    let mut bench = Bench::new();
    bench.prune("lobby", 2 * BATCH);
    let last = format!("lobby{}", 2 * BATCH - 1);
    bench.add("lobby", join(&last), Haste::Asked);
    let (_, writes) = bench.next().swap_remove(0);
    assert!(matches!(&writes[0], Write::Leave { channel, .. } if channel.as_str() == last));
    assert!(matches!(&writes[1], Write::Join(presence) if presence.channel.as_str() == last));
}

#[actix::test]
async fn what_leaves_goes_before_what_joins_also_if_it_came_later() {
    let mut bench = Bench::new();
    for n in 0..BATCH {
        bench.add("lobby", join(&n.to_string()), Haste::Asked);
    }
    bench.add("lobby", leave("x"), Haste::Asked);
    let (_, writes) = bench.next().swap_remove(0);
    assert!(matches!(writes[0], Write::Leave { .. }));
}

#[actix::test]
async fn a_transaction_that_failed_is_tried_again_in_smaller_parts_until_it_works() {
    let mut bench = Bench::new();
    for n in 0..BATCH {
        bench.add("lobby", join(&n.to_string()), Haste::Asked);
    }
    for expected in [BATCH, BATCH / 2, BATCH / 4] {
        let Work::Changes(batch) = bench.queue.next(Tick(0), Duration::ZERO, true) else { panic!("changes wait") };
        assert_eq!(batch.writes[0].writes.len(), expected);
        bench.queue.put_back(batch);
        bench.queue.not_written(false);
    }
    assert_eq!((bench.queue.pending(), bench.sizes()), (BATCH, vec![("lobby".to_owned(), BATCH / 8)]));
    bench.queue.written(Duration::ZERO);
    assert_eq!(bench.sizes(), [("lobby".to_owned(), BATCH / 4)]);
}

#[actix::test]
async fn two_changes_of_one_presence_keep_their_order_also_if_the_first_is_tried_again() {
    let mut bench = Bench::new();
    let ann = join("ann");
    let left = Write::Leave { id: ann.id(), channel: ChannelName::new("ann").unwrap() };
    bench.add("lobby", ann, Haste::Asked);
    let Work::Changes(batch) = bench.queue.next(Tick(0), Duration::ZERO, true) else { panic!("a change waits") };
    assert_eq!(bench.add("lobby", left.clone(), Haste::Asked), Submitted::Waits(1));
    bench.queue.put_back(batch);
    assert_eq!(bench.next(), [("lobby".to_owned(), vec![left])], "it may be there by now, so it must go");
}

#[actix::test]
async fn one_who_is_lost_and_back_again_and_again_while_the_database_is_away_waits_once() {
    let mut bench = Bench::new();
    let id = PresenceId::random();
    let session = Session { hash: SessionHash::from_bytes([1; 32]), grace: Duration::from_secs(1) };
    let channel = |n: usize| ChannelName::new(format!("socket {n}")).unwrap();
    let resume = |n| Write::Resume { presence: Presence::new(id, channel(n), None, NodeId::random()).into(), session };
    for n in 0..1000 {
        bench.add("lobby", Write::Hold { id, channel: channel(n), grace: session.grace }, Haste::Asked);
        bench.queue.add(&room("lobby"), &bench.actor, Change { write: resume(n + 1), tried: Tried::Yes }, Haste::Asked);
    }
    assert_eq!(bench.queue.pending(), 1);
    let last = bench.next().remove(0).1.remove(0);
    assert!(matches!(last, Write::Resume { presence, .. } if presence.channel == channel(1000)));
    assert_eq!((bench.queue.pending(), bench.next()), (0, Vec::new()));
}

#[actix::test]
async fn last_updates_are_taken_on_beyond_the_bound_but_not_any_number_of_one_presence() {
    let (writer, actor) = (Writer::new(1, Health::default(), |_| ()), Room.start().recipient());
    let session = Session { hash: SessionHash::from_bytes([1; 32]), grace: Duration::from_secs(1) };
    let update = |id, channel: &str| {
        let channel = ChannelName::new(channel).unwrap();
        Write::Update { id, channel, user: None, meta: Some(Meta::default()) }
    };
    for n in 0..100 {
        let last = writer.submit_last(&room("lobby"), &actor, update(PresenceId::random(), &n.to_string()));
        assert!(last.is_ok(), "each is another presence");
    }
    assert!(writer.submit(&room("lobby"), &actor, update(PresenceId::random(), "other")).is_err());
    // One is taken over by one socket after the other while the database is away.
    let id = PresenceId::random();
    let taken_on = (0..100).filter(|n| {
        let channel = ChannelName::new(format!("socket {n}")).unwrap();
        let presence = Presence::new(id, channel.clone(), None, NodeId::random());
        writer.resume(&room("lobby"), &actor, Arc::new(presence), session);
        writer.submit_last(&room("lobby"), &actor, update(id, channel.as_str())).is_ok()
    });
    let taken_on = taken_on.count();
    assert_eq!((taken_on, writer.pending()), (MOST_OF_ONE / 2, 100 + MOST_OF_ONE + 1));
}

#[actix::test]
async fn what_was_pruned_and_not_written_lets_a_join_go_before_it() {
    // It was put back as if somebody waited for it, and a join went with the twelfth transaction.
    let mut bench = Bench::new();
    bench.prune("lobby", 4 * BATCH);
    let Work::Changes(batch) = bench.queue.next(Tick(0), Duration::ZERO, true) else { panic!("changes wait") };
    bench.queue.put_back(batch);
    bench.queue.not_written(false);
    bench.add("bar", join("ann"), Haste::Asked);
    let next = bench.next();
    assert!(next.iter().any(|(room, _)| room == "bar"), "it goes with the next");
    assert_eq!(bench.queue.pending(), 4 * BATCH + 1 - next.iter().map(|(_, writes)| writes.len()).sum::<usize>());
}

#[actix::test]
async fn a_prune_changes_no_more_rooms_at_once_than_its_events_may_be() {
    let mut bench = Bench::new();
    for n in 0..2 * MOST_ROOMS {
        bench.prune(&format!("room {n}"), 1);
    }
    assert_eq!(bench.next().len(), MOST_ROOMS);
}

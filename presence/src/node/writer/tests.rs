//! Which changes go into which transaction.

mod lanes;

use std::{sync::Arc, time::Duration};

use actix::{Actor, Context, Handler, Recipient};

use super::{
    Committed, MAX_PENDING_OF_PRESENCE, Writer,
    lanes::BRIEFLY,
    merge::{Change, Tried},
    queue::{MAX_CHANGES_PER_TRANSACTION, NextWrite, Priority, Submitted, WriteQueue},
};
use crate::{
    clock::Tick,
    model::{Meta, Presence},
    name::{ChannelName, NodeId, PresenceId, RoomName},
    node::health::Health,
    session::{Session, SessionHash},
    store::Write,
    store::pace::MAX_ROOMS_PER_REMOVAL,
};

struct RoomStub;

impl Actor for RoomStub {
    type Context = Context<Self>;
}

impl Handler<Committed> for RoomStub {
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
    queue: WriteQueue,
    actor: Recipient<Committed>,
}

impl Bench {
    fn new() -> Self {
        Self { queue: WriteQueue::new(1), actor: RoomStub.start().recipient() }
    }

    fn add(&mut self, name: &str, write: Write, priority: Priority) -> Submitted {
        self.queue.add(&room(name), &self.actor, Change { write, tried: Tried::No }, priority)
    }

    fn prune(&mut self, name: &str, count: usize) {
        for n in 0..count {
            self.add(name, leave(&format!("{name}{n}")), Priority::Pruned);
        }
    }

    /// The next batch, as if the one before it were written.
    fn next(&mut self) -> Vec<(String, Vec<Write>)> {
        self.queue.resolved(0);
        let NextWrite::Changes(batch) = self.queue.next(0, Tick(0), Duration::ZERO, true) else { return Vec::new() };
        batch.writes.into_iter().map(|of| (of.room.to_string(), of.writes)).collect()
    }

    fn sizes(&mut self) -> Vec<(String, usize)> {
        self.next().into_iter().map(|(room, writes)| (room, writes.len())).collect()
    }
}

#[actix::test]
async fn a_room_with_more_changes_than_one_transaction_takes_is_written_in_several() {
    // One transaction with all of them exceeded its time-out, and was repeated for ever.
    let mut bench = Bench::new();
    for n in 0..2 * MAX_CHANGES_PER_TRANSACTION + 5 {
        bench.add("large", join(&n.to_string()), Priority::Requested);
    }
    bench.add("small", join("s"), Priority::Requested);
    let sizes: Vec<_> = std::iter::from_fn(|| Some(bench.sizes()).filter(|sizes| !sizes.is_empty())).collect();
    let (large, small) = ("large".to_owned(), "small".to_owned());
    assert_eq!(
        sizes,
        [
            vec![(large.clone(), MAX_CHANGES_PER_TRANSACTION)],
            vec![(large.clone(), MAX_CHANGES_PER_TRANSACTION)],
            vec![(large, 5), (small, 1)]
        ]
    );
    assert_eq!(bench.queue.pending(), 0);
}

#[actix::test]
async fn a_request_during_a_large_prune_goes_into_the_next_transaction() {
    // It waited until the prune was over.
    let mut bench = Bench::new();
    for n in 0..1_000 {
        bench.prune(&format!("room {n}"), 100);
    }
    let sum = |sizes: &[(String, usize)]| sizes.iter().map(|(_, size)| size).sum::<usize>();
    for expected in [MAX_CHANGES_PER_TRANSACTION, 2 * MAX_CHANGES_PER_TRANSACTION, 4 * MAX_CHANGES_PER_TRANSACTION] {
        assert_eq!(sum(&bench.sizes()), expected, "nobody waits, and the transaction before was quick");
        bench.queue.written(0, Duration::ZERO);
    }
    bench.add("lobby", join("ann"), Priority::Requested);
    bench.add("room 999", join("bob"), Priority::Requested);
    let next = bench.sizes();
    assert_eq!(next[..2], [("lobby".to_owned(), 1), ("room 999".to_owned(), 1)]);
    assert_eq!(sum(&next), MAX_CHANGES_PER_TRANSACTION);
    assert_eq!(bench.queue.pending(), 100_002 - 8 * MAX_CHANGES_PER_TRANSACTION);
    bench.queue.written(0, Duration::ZERO);
    assert_eq!(sum(&bench.sizes()), MAX_CHANGES_PER_TRANSACTION, "the pace begins anew");
    bench.queue.not_written(0, false);
    assert_eq!(sum(&bench.sizes()), MAX_CHANGES_PER_TRANSACTION / 2, "it may have been too large");
}

#[actix::test]
async fn a_prune_gets_a_quarter_of_each_transaction_however_much_is_requested() {
    let mut bench = Bench::new();
    bench.prune("pruned", MAX_CHANGES_PER_TRANSACTION);
    for n in 0..4 * MAX_CHANGES_PER_TRANSACTION {
        bench.add("busy", join(&n.to_string()), Priority::Requested);
    }
    for _ in 0..4 {
        let quarter = ("pruned".to_owned(), MAX_CHANGES_PER_TRANSACTION / 4);
        assert_eq!(
            bench.sizes(),
            [("busy".to_owned(), MAX_CHANGES_PER_TRANSACTION - MAX_CHANGES_PER_TRANSACTION / 4), quarter]
        );
    }
    assert_eq!(bench.sizes(), [("busy".to_owned(), MAX_CHANGES_PER_TRANSACTION)]);
}

#[actix::test]
async fn without_the_removal_permit_only_requested_changes_are_written() {
    let mut bench = Bench::new();
    bench.prune("lobby", 3);
    let not_now = |bench: &mut Bench| match bench.queue.next(0, Tick(0), Duration::ZERO, false) {
        NextWrite::Changes(batch) => batch.writes.iter().map(|of| of.writes.len()).sum(),
        NextWrite::Nothing { touches_in: None } => 0,
        _ => panic!("nobody was touched"),
    };
    assert_eq!(not_now(&mut bench), 0);
    for n in 0..MAX_CHANGES_PER_TRANSACTION {
        bench.add("lobby", join(&n.to_string()), Priority::Requested);
    }
    assert_eq!(not_now(&mut bench), MAX_CHANGES_PER_TRANSACTION, "a full transaction");
    assert_eq!((bench.queue.pending(), bench.sizes()), (3, vec![("lobby".to_owned(), 3)]));
}

#[actix::test]
async fn a_room_with_requested_and_pruned_changes_is_in_a_transaction_once() {
    let mut bench = Bench::new();
    bench.prune("lobby", 3);
    bench.add("lobby", join("ann"), Priority::Requested);
    assert_eq!(bench.sizes(), [("lobby".to_owned(), 4)]);
}

#[actix::test]
async fn a_channel_that_is_pruned_and_joins_again_leaves_before_it_joins() {
    // Otherwise the room would have two presences of one channel, which the database refuses.
    let mut bench = Bench::new();
    bench.prune("lobby", 2 * MAX_CHANGES_PER_TRANSACTION);
    let last = format!("lobby{}", 2 * MAX_CHANGES_PER_TRANSACTION - 1);
    bench.add("lobby", join(&last), Priority::Requested);
    let (_, writes) = bench.next().swap_remove(0);
    assert!(matches!(&writes[0], Write::Leave { channel, .. } if channel.as_str() == last));
    assert!(matches!(&writes[1], Write::Join(presence) if presence.channel.as_str() == last));
}

#[actix::test]
async fn leaves_are_written_before_joins_even_if_they_came_later() {
    let mut bench = Bench::new();
    for n in 0..MAX_CHANGES_PER_TRANSACTION {
        bench.add("lobby", join(&n.to_string()), Priority::Requested);
    }
    bench.add("lobby", leave("x"), Priority::Requested);
    let (_, writes) = bench.next().swap_remove(0);
    assert!(matches!(writes[0], Write::Leave { .. }));
}

#[actix::test]
async fn a_failed_transaction_is_repeated_in_smaller_parts_until_one_succeeds() {
    let mut bench = Bench::new();
    for n in 0..MAX_CHANGES_PER_TRANSACTION {
        bench.add("lobby", join(&n.to_string()), Priority::Requested);
    }
    for expected in [MAX_CHANGES_PER_TRANSACTION, MAX_CHANGES_PER_TRANSACTION / 2, MAX_CHANGES_PER_TRANSACTION / 4] {
        let NextWrite::Changes(batch) = bench.queue.next(0, Tick(0), Duration::ZERO, true) else {
            panic!("changes wait")
        };
        assert_eq!(batch.writes[0].writes.len(), expected);
        bench.queue.put_back(batch);
        bench.queue.not_written(0, false);
    }
    assert_eq!(
        (bench.queue.pending(), bench.sizes()),
        (MAX_CHANGES_PER_TRANSACTION, vec![("lobby".to_owned(), MAX_CHANGES_PER_TRANSACTION / 8)])
    );
    bench.queue.written(0, Duration::ZERO);
    assert_eq!(bench.sizes(), [("lobby".to_owned(), MAX_CHANGES_PER_TRANSACTION / 4)]);
}

#[actix::test]
async fn two_changes_of_one_presence_keep_their_order_if_the_first_is_repeated() {
    let mut bench = Bench::new();
    let ann = join("ann");
    let left = Write::Leave { id: ann.id(), channel: ChannelName::new("ann").unwrap() };
    bench.add("lobby", ann, Priority::Requested);
    let NextWrite::Changes(batch) = bench.queue.next(0, Tick(0), Duration::ZERO, true) else {
        panic!("a change waits")
    };
    assert_eq!(bench.add("lobby", left.clone(), Priority::Requested), Submitted::Queued(1));
    bench.queue.put_back(batch);
    assert_eq!(
        bench.next(),
        [("lobby".to_owned(), vec![left])],
        "the join may be in the database, so the leave is written"
    );
}

#[actix::test]
async fn a_presence_that_is_resumed_again_and_again_during_an_outage_has_one_queued_change() {
    let mut bench = Bench::new();
    let id = PresenceId::random();
    let session = Session { hash: SessionHash::from_bytes([1; 32]), grace: Duration::from_secs(1) };
    let channel = |n: usize| ChannelName::new(format!("socket {n}")).unwrap();
    let resume = |n| Write::Resume { presence: Presence::new(id, channel(n), None, NodeId::random()).into(), session };
    for n in 0..1000 {
        bench.add("lobby", Write::Hold { id, channel: channel(n), grace: session.grace }, Priority::Requested);
        bench.queue.add(
            &room("lobby"),
            &bench.actor,
            Change { write: resume(n + 1), tried: Tried::Yes },
            Priority::Requested,
        );
    }
    assert_eq!(bench.queue.pending(), 1);
    let last = bench.next().remove(0).1.remove(0);
    assert!(matches!(last, Write::Resume { presence, .. } if presence.channel == channel(1000)));
    assert_eq!((bench.queue.pending(), bench.next()), (0, Vec::new()));
}

#[actix::test]
async fn last_updates_exceed_the_limit_but_not_any_number_of_one_presence() {
    let (writer, actor) = (Writer::new(1, 1, Health::default(), |_| ()), RoomStub.start().recipient());
    let session = Session { hash: SessionHash::from_bytes([1; 32]), grace: Duration::from_secs(1) };
    let update = |id, channel: &str| {
        let channel = ChannelName::new(channel).unwrap();
        Write::Update { id, channel, user: None, meta: Some(Meta::default()) }
    };
    for n in 0..100 {
        let last = writer.submit_last(&room("lobby"), &actor, update(PresenceId::random(), &n.to_string()));
        assert!(last.is_ok(), "each is another presence");
    }
    assert!(writer.submit(&room("lobby"), &actor, update(PresenceId::random(), "other"), Tried::No).is_err());
    // One presence is resumed by one socket after the other while the database is away.
    let id = PresenceId::random();
    let accepted = (0..100).filter(|n| {
        let channel = ChannelName::new(format!("socket {n}")).unwrap();
        let presence = Presence::new(id, channel.clone(), None, NodeId::random());
        writer.submit_always(
            &room("lobby"),
            &actor,
            Write::Resume { presence: Arc::new(presence), session },
            Tried::Yes,
        );
        writer.submit_last(&room("lobby"), &actor, update(id, channel.as_str())).is_ok()
    });
    let accepted = accepted.count();
    assert_eq!((accepted, writer.pending()), (MAX_PENDING_OF_PRESENCE / 2, 100 + MAX_PENDING_OF_PRESENCE + 1));
}

#[actix::test]
async fn a_join_is_written_before_pruned_changes_that_were_put_back() {
    // They were put back as if they had been requested, and the join went into the twelfth transaction.
    let mut bench = Bench::new();
    bench.prune("lobby", 4 * MAX_CHANGES_PER_TRANSACTION);
    let NextWrite::Changes(batch) = bench.queue.next(0, Tick(0), Duration::ZERO, true) else { panic!("changes wait") };
    bench.queue.put_back(batch);
    bench.queue.not_written(0, false);
    bench.add("bar", join("ann"), Priority::Requested);
    let next = bench.next();
    assert!(next.iter().any(|(room, _)| room == "bar"), "the join is in the next transaction");
    assert_eq!(
        bench.queue.pending(),
        4 * MAX_CHANGES_PER_TRANSACTION + 1 - next.iter().map(|(_, writes)| writes.len()).sum::<usize>()
    );
}

#[actix::test]
async fn a_prune_changes_no_more_rooms_at_once_than_subscribers_can_queue_events() {
    let mut bench = Bench::new();
    for n in 0..2 * MAX_ROOMS_PER_REMOVAL {
        bench.prune(&format!("room {n}"), 1);
    }
    assert_eq!(bench.next().len(), MAX_ROOMS_PER_REMOVAL);
}

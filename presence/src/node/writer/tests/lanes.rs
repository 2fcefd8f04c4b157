//! Several lanes write at once, and rooms are set aside.

mod presences;

use std::collections::{BTreeMap, HashMap};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::*;
use crate::node::writer::batch::WriteBatch;

const LANES: u16 = 4;
const ASIDE: u16 = LANES;

fn bench() -> Bench {
    Bench { queue: WriteQueue::new(LANES + 1), actor: RoomStub.start().recipient() }
}

impl Bench {
    fn request(&mut self, name: &str) {
        self.add(name, join(name), Priority::Requested);
    }

    /// What the next free lane writes.
    fn begin(&mut self) -> Option<WriteBatch> {
        let lane = self.queue.lanes().free()?;
        match self.queue.next(lane, Tick(0), Duration::ZERO, true) {
            NextWrite::Changes(batch) if !batch.writes.is_empty() => Some(batch),
            _ => None,
        }
    }

    fn begin_aside(&mut self) -> Option<WriteBatch> {
        self.queue.lanes().free_aside()?;
        self.queue.next_aside(ASIDE, Duration::from_secs(5), true)
    }

    /// Others have locked these rooms of a batch.
    fn are_locked(&mut self, batch: WriteBatch, names: &[&str]) {
        let (lane, locked): (_, Vec<_>) = (batch.lane, names.iter().map(|name| room(name)).collect());
        self.queue.put_back(batch);
        self.queue.set_aside(lane, &locked);
    }
}

fn rooms_of(batch: &WriteBatch) -> Vec<&str> {
    batch.writes.iter().map(|of| of.room.as_str()).collect()
}

fn rooms(batch: Option<WriteBatch>) -> Vec<String> {
    batch.iter().flat_map(rooms_of).map(str::to_owned).collect()
}

#[actix::test]
async fn a_room_that_one_lane_writes_is_left_alone_by_the_others() {
    let mut bench = bench();
    bench.request("lobby");
    let first = bench.begin().unwrap();
    bench.request("lobby");
    assert_eq!(rooms(bench.begin()), Vec::<String>::new());
    bench.request("bar");
    assert_eq!(rooms(bench.begin()), ["bar"]);
    bench.queue.written(first.lane, Duration::ZERO);
    assert_eq!(rooms(bench.begin()), ["lobby"]);
}

#[actix::test]
async fn a_room_whose_pruned_presences_one_lane_removes_is_left_alone_by_the_others() {
    // It stayed in the list of rooms with requests behind another room, from which the next lane took it.
    let mut bench = bench();
    // The limit of a transaction is 16 changes then.
    for _ in 0..6 {
        bench.queue.not_written(0, true);
    }
    for n in 0..13 {
        bench.add("large", join(&format!("large {n}")), Priority::Requested);
    }
    bench.request("bar");
    bench.request("lobby");
    bench.prune("lobby", 1);
    let first = bench.begin().unwrap();
    assert_eq!(rooms_of(&first), ["large", "lobby"]);
    assert_eq!(rooms(bench.begin()), ["bar"]);
    bench.queue.written(first.lane, Duration::ZERO);
    assert!(rooms(bench.begin()).contains(&"lobby".to_owned()));
}

#[actix::test]
async fn pruned_presences_of_a_room_that_is_still_locked_wait_for_the_removal_permit_again() {
    let mut bench = bench();
    bench.prune("locked", 3);
    let batch = bench.begin().unwrap();
    bench.are_locked(batch, &["locked"]);
    let batch = bench.begin_aside().unwrap();
    assert_eq!((batch.priority, batch.writes[0].writes.len()), (Priority::Pruned, 3));
    bench.are_locked(batch, &["locked"]);
    let without_permit = bench.queue.next_aside(ASIDE, Duration::from_secs(5), false);
    assert!(without_permit.is_none());
    assert_eq!(rooms(bench.begin_aside()), ["locked"]);
}

#[actix::test]
async fn a_room_that_waits_for_the_removal_permit_does_not_keep_others_waiting() {
    let mut bench = bench();
    bench.prune("pruned", 1);
    let batch = bench.begin().unwrap();
    bench.are_locked(batch, &["pruned"]);
    bench.request("joined");
    let batch = bench.begin().unwrap();
    bench.are_locked(batch, &["joined"]);
    for _ in 0..2 {
        let batch = bench.queue.next_aside(ASIDE, Duration::from_secs(5), false).unwrap();
        assert_eq!(rooms_of(&batch), ["joined"]);
        bench.are_locked(batch, &["joined"]);
    }
}

#[actix::test]
async fn while_the_database_is_away_only_what_was_tried_is_tried_again() {
    // A join was tried whose caller had given up since, and the others were told that somebody came and left.
    let mut bench = bench();
    bench.add("lobby", leave("dan"), Priority::Requested);
    let first = bench.begin().unwrap();
    bench.request("lobby");
    bench.request("bar");
    let lane = first.lane;
    bench.queue.not_written(lane, true);
    bench.queue.put_back(first);
    bench.queue.resolved(lane);
    let again = bench.begin().unwrap();
    assert_eq!((rooms_of(&again), again.writes[0].writes.len()), (vec!["lobby"], 1));
    bench.queue.written(again.lane, Duration::ZERO);
    let rest = bench.begin().unwrap();
    assert_eq!(rooms_of(&rest).len(), 2);
}

#[actix::test]
async fn rooms_with_other_locks_go_on_and_a_locked_room_is_tried_in_a_lane_of_its_own() {
    let mut bench = bench();
    for name in ["locked", "free"] {
        bench.request(name);
    }
    let both = bench.begin().unwrap();
    assert_eq!((rooms_of(&both), both.patience), (vec!["locked", "free"], Some(BRIEFLY)));
    bench.are_locked(both, &["locked"]);
    bench.request("locked");
    let (free, locked) = (bench.begin().unwrap(), bench.begin_aside().unwrap());
    assert_eq!((rooms_of(&free), rooms_of(&locked)), (vec!["free"], vec!["locked"]));
    assert_eq!(locked.writes[0].writes.len(), 2, "what came later waits for the room");
    assert_eq!(locked.patience, Some(Duration::from_secs(5)));
    assert!(bench.begin().is_none());
    // It stays aside until nothing of it waits.
    bench.request("locked");
    bench.queue.written(locked.lane, Duration::ZERO);
    assert!(bench.begin().is_none());
    let locked = bench.begin_aside().unwrap();
    bench.queue.written(locked.lane, Duration::ZERO);
    bench.request("locked");
    assert_eq!(rooms(bench.begin()), ["locked"]);
    assert!(bench.begin_aside().is_none());
}

#[actix::test]
async fn one_room_is_waited_for_at_a_time_and_then_all_are_tried() {
    let mut bench = bench();
    let names = ["a", "b", "c"];
    names.iter().for_each(|name| bench.request(name));
    let all = bench.begin().unwrap();
    bench.are_locked(all, &names);
    let mut turns = Vec::new();
    for _ in 0..2 {
        let one = bench.begin_aside().unwrap();
        turns.push(rooms_of(&one).join(""));
        assert!(one.patience > Some(BRIEFLY));
        let locked: Vec<String> = rooms_of(&one).into_iter().map(str::to_owned).collect();
        bench.are_locked(one, &[&locked[0]]);
        let all = bench.begin_aside().unwrap();
        assert_eq!((rooms_of(&all).len(), all.patience < Some(BRIEFLY)), (3, true));
        bench.are_locked(all, &names);
    }
    assert_ne!(turns[0], turns[1]);
    let one = bench.begin_aside().unwrap();
    bench.queue.written(one.lane, Duration::ZERO);
    let rest = bench.begin_aside().unwrap();
    let free = rooms_of(&rest)[0].to_owned();
    let locked = rooms_of(&rest)[1].to_owned();
    bench.are_locked(rest, &[&locked]);
    assert_eq!(rooms(bench.begin()), [free], "its lock is free again");
}

#[actix::test]
async fn the_queue_is_idle_when_all_lanes_are() {
    let mut bench = bench();
    bench.request("lobby");
    let lobby = bench.begin().unwrap();
    bench.request("locked");
    let locked = bench.begin().unwrap();
    bench.are_locked(locked, &["locked"]);
    bench.queue.written(lobby.lane, Duration::ZERO);
    assert!(!bench.queue.is_idle() && bench.queue.is_writing());
    let locked = bench.begin_aside().unwrap();
    assert!(!bench.queue.is_idle() && bench.queue.is_writing());
    bench.queue.written(locked.lane, Duration::ZERO);
    assert!(bench.queue.is_idle() && !bench.queue.is_writing());
}

#[actix::test]
async fn pruned_presences_of_a_locked_room_wait_for_the_removal_permit() {
    let mut bench = bench();
    bench.prune("locked", 3);
    let pruned = bench.begin().unwrap();
    bench.are_locked(pruned, &["locked"]);
    assert!(bench.queue.waits_to_prune() && !bench.queue.prunes());
    assert!(bench.queue.next_aside(ASIDE, Duration::from_secs(5), false).is_none());
    bench.request("locked");
    let requested = bench.queue.next_aside(ASIDE, Duration::from_secs(5), false).unwrap();
    assert_eq!(requested.writes[0].writes.len(), 1);
    bench.queue.written(requested.lane, Duration::ZERO);
    assert_eq!(bench.begin_aside().unwrap().writes[0].writes.len(), 3);
}

#[actix::test]
async fn pruned_presences_are_taken_before_a_room_with_requested_changes_when_all_are_tried() {
    // They were taken and then forgotten, so that the presences stayed in the database.
    let mut bench = bench();
    bench.request("first");
    let batch = bench.begin().unwrap();
    bench.are_locked(batch, &["first"]);
    let first = bench.begin_aside().unwrap();
    bench.prune("pruned", 1);
    let batch = bench.begin().unwrap();
    bench.are_locked(batch, &["pruned"]);
    bench.request("joined");
    let batch = bench.begin().unwrap();
    bench.are_locked(batch, &["joined"]);
    bench.queue.written(first.lane, Duration::ZERO);
    for name in ["pruned", "joined"] {
        let batch = bench.begin_aside().unwrap();
        assert_eq!(rooms_of(&batch), [name]);
        bench.queue.written(batch.lane, Duration::ZERO);
    }
    assert_eq!(bench.queue.pending(), 0);
}

/// What may happen next: to a queue, or to the transaction of a lane.
#[derive(Debug, Clone)]
enum Step {
    /// The meta of a presence of a room is changed to the next number.
    Update {
        room: usize,
        presence: usize,
    },
    Begin,
    BeginAside,
    Written(u16),
    Failed(u16),
    /// Others have locked some of the rooms of the lane: those with a bit.
    Locked(u16, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let lane = 0..=ASIDE;
    prop_oneof![
        4 => (0..5_usize, 0..3_usize).prop_map(|(room, presence)| Step::Update { room, presence }),
        3 => Just(Step::Begin),
        2 => Just(Step::BeginAside),
        3 => lane.clone().prop_map(Step::Written),
        1 => lane.clone().prop_map(Step::Failed),
        2 => (lane, any::<u8>()).prop_map(|(lane, rooms)| Step::Locked(lane, rooms)),
    ]
}

/// A queue, its lanes, and what was written.
struct Run {
    bench: Bench,
    ids: Vec<Vec<PresenceId>>,
    lanes: HashMap<u16, WriteBatch>,
    submitted: BTreeMap<PresenceId, u64>,
    written: BTreeMap<PresenceId, u64>,
    number: u64,
}

impl Run {
    fn new() -> Self {
        let ids = (0..5).map(|_| (0..3).map(|_| PresenceId::random()).collect()).collect();
        let (lanes, submitted, written) = Default::default();
        Self { bench: bench(), ids, lanes, submitted, written, number: 0 }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Update { room, presence } => {
                self.number += 1;
                let id = self.ids[room][presence];
                let meta = Some(Meta::from_json(&format!(r#"{{"n":{}}}"#, self.number)).unwrap());
                let update = Write::Update { id, channel: ChannelName::new("socket").unwrap(), user: None, meta };
                self.bench.add(&format!("room {room}"), update, Priority::Requested);
                self.submitted.insert(id, self.number);
            }
            Step::Begin => {
                let batch = self.bench.begin();
                self.begun(batch);
            }
            Step::BeginAside => {
                let batch = self.bench.begin_aside();
                self.begun(batch);
            }
            Step::Written(lane) => {
                let Some(batch) = self.lanes.remove(&lane) else { return };
                for write in batch.writes.iter().flat_map(|of| &of.writes) {
                    let Write::Update { id, meta: Some(meta), .. } = write else { panic!("only updates: {write:?}") };
                    let number = meta.as_str().trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
                    let before = self.written.insert(*id, number);
                    assert!(before.is_none_or(|before| before < number), "{before:?} was written before {number}");
                }
                self.bench.queue.written(lane, Duration::ZERO);
            }
            Step::Failed(lane) => {
                let Some(batch) = self.lanes.remove(&lane) else { return };
                self.bench.queue.put_back(batch);
                self.bench.queue.not_written(lane, false);
            }
            Step::Locked(lane, bits) => {
                let Some(batch) = self.lanes.remove(&lane) else { return };
                let rooms: Vec<_> = rooms_of(&batch).into_iter().map(str::to_owned).collect();
                let some = (0..).zip(&rooms).filter(|(n, _)| bits & (1 << n) != 0);
                let mut locked: Vec<&str> = some.map(|(_, room)| &**room).collect();
                if locked.is_empty() {
                    locked.push(&rooms[0]);
                }
                self.bench.are_locked(batch, &locked);
            }
        }
        let waits: usize = self.submitted.iter().filter(|(id, number)| self.written.get(id) != Some(number)).count();
        let in_lanes: usize = self.lanes.values().flat_map(|batch| &batch.writes).map(|of| of.writes.len()).sum();
        let pending = self.bench.queue.pending();
        assert!(pending <= waits && waits <= pending + in_lanes, "{pending} wait of {waits}, {in_lanes} in lanes");
    }

    fn begun(&mut self, batch: Option<WriteBatch>) {
        let Some(batch) = batch else { return };
        for other in self.lanes.values() {
            let twice = rooms_of(&batch).into_iter().find(|room| rooms_of(other).contains(room));
            assert_eq!(twice, None, "two lanes write it");
        }
        assert!(self.lanes.insert(batch.lane, batch).is_none(), "the lane was free");
    }

    fn finish(mut self) {
        while !self.bench.queue.is_idle() {
            let idle = self.lanes.is_empty();
            self.take(&Step::Begin);
            self.take(&Step::BeginAside);
            assert!(!idle || !self.lanes.is_empty(), "something waits, and no lane takes it");
            (0..=ASIDE).for_each(|lane| self.take(&Step::Written(lane)));
        }
        assert_eq!((self.bench.queue.pending(), &self.written), (0, &self.submitted));
        self.take(&Step::Update { room: 0, presence: 0 });
        assert!(self.bench.begin().is_some(), "no room is aside that has nothing to write");
    }
}

#[actix::test]
async fn changes_keep_their_order_and_none_is_lost_whatever_becomes_of_each_transaction() {
    let mut runner = TestRunner::new(Config { cases: 1_000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&prop::collection::vec(step(), 1..120), |steps| {
        let mut run = Run::new();
        steps.iter().for_each(|step| run.take(step));
        run.finish();
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

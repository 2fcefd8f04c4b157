//! Presences join, change, leave and are pruned, and their channels join again, whatever becomes of each transaction.

use super::*;

const ROOMS: usize = 4;
/// More presences than one transaction may change after it failed again and again.
const CHANNELS: usize = 6;

/// What may happen next: to a channel in a room, or to the transaction of a lane.
#[derive(Debug, Clone)]
enum Step {
    /// The channel joins as a new presence, unless it is there. Otherwise its meta is changed to the next number.
    JoinOrUpdate(usize, usize),
    Leave(usize, usize, Priority),
    Begin,
    BeginAside,
    Written(u16),
    Failed(u16),
    /// Others have locked some of the rooms of the lane: those with a bit.
    Locked(u16, u8),
    /// The answer is lost. The transaction was written or not.
    InDoubt(u16, bool),
    /// The database says what became of a transaction in doubt.
    Resolved(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let (lane, of) = (0..=ASIDE, (0..ROOMS, 0..CHANNELS));
    let priority = prop_oneof![Just(Priority::Requested), Just(Priority::Pruned)];
    prop_oneof![
        6 => of.clone().prop_map(|(room, channel)| Step::JoinOrUpdate(room, channel)),
        4 => (of, priority).prop_map(|((room, channel), priority)| Step::Leave(room, channel, priority)),
        3 => Just(Step::Begin),
        2 => Just(Step::BeginAside),
        3 => lane.clone().prop_map(Step::Written),
        2 => lane.clone().prop_map(Step::Failed),
        2 => (lane.clone(), any::<u8>()).prop_map(|(lane, rooms)| Step::Locked(lane, rooms)),
        2 => (lane.clone(), any::<bool>()).prop_map(|(lane, written)| Step::InDoubt(lane, written)),
        3 => lane.prop_map(Step::Resolved),
    ]
}

/// The presence of each channel in each room, with the number in its meta.
type Presences = BTreeMap<(String, ChannelName), (PresenceId, u64)>;

/// The presences as a database keeps them, which refuses a second presence of one channel in a room.
#[derive(Debug, Default)]
struct Database(Presences);

impl Database {
    fn commit(&mut self, batch: &WriteBatch) {
        for of in &batch.writes {
            // Leaves take effect first, as in a store.
            let (leaves, others): (Vec<_>, Vec<_>) =
                of.writes.iter().partition(|write| matches!(write, Write::Leave { .. }));
            leaves.into_iter().chain(others).for_each(|write| self.write(of.room.as_str(), write));
        }
    }

    fn write(&mut self, room: &str, write: &Write) {
        let at = |channel: &ChannelName| (room.to_owned(), channel.clone());
        match write {
            Write::Join(presence) => {
                let there = self.0.insert(at(&presence.channel), (presence.id, number(&presence.meta)));
                assert!(there.is_none_or(|(id, _)| id == presence.id), "the channel has two presences");
                assert!(there.is_none_or(|(_, before)| before <= number(&presence.meta)), "a meta goes back");
            }
            Write::Update { id, channel, meta: Some(meta), .. } => {
                let Some((_, before)) = self.0.get_mut(&at(channel)).filter(|(there, _)| there == id) else { return };
                assert!(*before <= number(meta), "a meta goes back");
                *before = number(meta);
            }
            Write::Leave { id, channel } => {
                if self.0.get(&at(channel)).is_some_and(|(there, _)| there == id) {
                    self.0.remove(&at(channel));
                }
            }
            other => panic!("nobody has submitted this: {other:?}"),
        }
    }
}

fn number(meta: &Meta) -> u64 {
    meta.as_str().trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

/// A queue, its lanes, the database, and what it will be when all is written.
struct History {
    bench: Bench,
    lanes: HashMap<u16, WriteBatch>,
    in_doubt: HashMap<u16, (WriteBatch, bool)>,
    database: Database,
    submitted: Presences,
    number: u64,
}

impl History {
    fn new() -> Self {
        let mut bench = bench();
        // A transaction has a few changes only then.
        for _ in 0..6 {
            bench.queue.not_written(0, true);
        }
        let (lanes, in_doubt, database, submitted) = Default::default();
        Self { bench, lanes, in_doubt, database, submitted, number: 0 }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::JoinOrUpdate(room, channel) => {
                let (room, channel) = names(room, channel);
                self.number += 1;
                let meta = Meta::from_json(&format!(r#"{{"n":{}}}"#, self.number)).unwrap();
                let there = self.submitted.get_mut(&(room.clone(), channel.clone()));
                let write = if let Some((id, number)) = there {
                    *number = self.number;
                    Write::Update { id: *id, channel, user: None, meta: Some(meta) }
                } else {
                    let id = PresenceId::random();
                    self.submitted.insert((room.clone(), channel.clone()), (id, self.number));
                    let presence = Presence::new(id, channel, None, NodeId::random());
                    Write::Join(Arc::new(Presence { meta, ..presence }))
                };
                self.bench.add(&room, write, Priority::Requested);
            }
            Step::Leave(room, channel, priority) => {
                let (room, channel) = names(room, channel);
                if let Some((id, _)) = self.submitted.remove(&(room.clone(), channel.clone())) {
                    self.bench.add(&room, Write::Leave { id, channel }, priority);
                }
            }
            // No lane begins while another is in doubt.
            Step::Begin | Step::BeginAside if !self.in_doubt.is_empty() => {}
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
                self.database.commit(&batch);
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
            Step::InDoubt(lane, written) => {
                let Some(batch) = self.lanes.remove(&lane) else { return };
                if written {
                    self.database.commit(&batch);
                }
                self.bench.queue.not_written(lane, true);
                self.in_doubt.insert(lane, (batch, written));
            }
            Step::Resolved(lane) => {
                let Some((batch, written)) = self.in_doubt.remove(&lane) else { return };
                if !written {
                    self.bench.queue.put_back(batch);
                }
                self.bench.queue.resolved(lane);
            }
        }
    }

    fn begun(&mut self, batch: Option<WriteBatch>) {
        let Some(batch) = batch else { return };
        let in_doubt = self.in_doubt.values().map(|(batch, _)| batch);
        for other in self.lanes.values().chain(in_doubt) {
            let twice = rooms_of(&batch).into_iter().find(|room| rooms_of(other).contains(room));
            assert_eq!(twice, None, "two lanes write it");
        }
        assert!(self.lanes.insert(batch.lane, batch).is_none(), "the lane was free");
    }

    fn finish(mut self) {
        while !self.bench.queue.is_idle() {
            (0..=ASIDE).for_each(|lane| self.take(&Step::Resolved(lane)));
            let idle = self.lanes.is_empty();
            self.take(&Step::Begin);
            self.take(&Step::BeginAside);
            assert!(
                !idle || !self.lanes.is_empty() || self.bench.queue.is_idle(),
                "something waits, and no lane takes it"
            );
            (0..=ASIDE).for_each(|lane| self.take(&Step::Written(lane)));
        }
        assert_eq!((self.bench.queue.pending(), &self.database.0), (0, &self.submitted));
    }
}

fn names(room: usize, channel: usize) -> (String, ChannelName) {
    (format!("room {room}"), ChannelName::new(format!("socket {channel}")).unwrap())
}

#[actix::test]
async fn the_database_has_in_the_end_who_is_there_and_each_channel_once_at_any_time() {
    let mut runner = TestRunner::new(Config { cases: 2_000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&prop::collection::vec(step(), 1..160), |steps| {
        let mut history = History::new();
        steps.iter().for_each(|step| history.take(step));
        history.finish();
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

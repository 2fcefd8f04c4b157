//! What rounds compare, and what they notice.

use super::*;
use crate::store::{ChangedRoom, WriteCounts};

const SECOND: Duration = Duration::from_secs(1);
const OVERLAP: Duration = Duration::from_secs(10);
/// When the clock of the node began, by that of the database.
const START: u64 = 1_000_000;

/// A node that asks every five seconds, and the database that it asks.
struct Trial {
    comparisons: Comparisons,
    node: NodeId,
    epoch: Epoch,
    now: Tick,
    confirmed: u64,
    answer: RecentChanges,
}

fn commits(commits: u64) -> Option<WriteCounts> {
    Some(WriteCounts { renewals: 0, commits })
}

impl Trial {
    /// The first round is over.
    fn new() -> Self {
        let answer = RecentChanges {
            others: 0,
            time: Duration::ZERO,
            next: Duration::ZERO,
            rooms: Vec::new(),
            is_complete: true,
            own_writes: commits(0),
            prunes: 3,
            set_backs: 7,
        };
        let (comparisons, node, epoch) = (Comparisons::default(), NodeId::random(), Epoch::random());
        let mut trial = Self { comparisons, node, epoch, now: Tick(0), confirmed: 0, answer };
        assert_eq!(trial.round(), (Scope::All, None));
        trial
    }

    fn room(&mut self, name: &str, version: u64, changed_at: u64) {
        let room = RoomName::new(name).unwrap();
        self.answer.rooms.retain(|other| other.room != room);
        let changed_at = Duration::from_secs(START + changed_at);
        let (epoch, version) = (self.epoch, Version(version));
        self.answer.rooms.push(ChangedRoom { room, epoch, version, changed_at });
    }

    /// Asks, five seconds after the last time.
    fn ask(&mut self) -> Round {
        self.now = self.now.after(SECOND * 5);
        self.answer.time = Duration::from_secs(START) + self.now.since(Tick(0));
        self.ask_now()
    }

    fn ask_now(&mut self) -> Round {
        self.answer.next = self.answer.time - OVERLAP;
        let question = self.comparisons.begin(self.node, self.now, self.confirmed);
        let since = question.since.min(self.answer.time);
        let mut answer = self.answer.clone();
        answer.rooms.retain(|room| room.changed_at.as_secs() >= since.as_secs());
        self.comparisons.judge(question, self.now, &answer)
    }

    /// A whole round: which rooms it compares, and if the database has lost changes, whether that is news.
    fn round(&mut self) -> (Scope, Option<bool>) {
        let round = self.ask();
        self.end(round)
    }

    fn end(&mut self, round: Round) -> (Scope, Option<bool>) {
        let found = (round.scope, round.set_back.as_ref().map(|set_back| set_back.report.is_some()));
        if found.1 == Some(true) {
            self.answer.set_backs += 1;
        }
        self.comparisons.end(round);
        self.comparisons.reported();
        found
    }
}

#[test]
fn in_twelve_rounds_each_slice_is_compared_once() {
    let mut trial = Trial::new();
    for slice in (0..SLICES).chain(0..SLICES) {
        assert_eq!(trial.round(), (Scope::Slice(slice), None));
    }
}

#[test]
fn after_a_round_that_failed_all_rooms_are_compared() {
    let mut trial = Trial::new();
    assert_eq!(trial.round().0, Scope::Slice(0));
    // The database did not answer, or a room was not compared.
    let since = trial.comparisons.begin(trial.node, trial.now, 0).since;
    let round = trial.ask();
    assert_eq!(round.scope, Scope::All);
    drop(round);
    assert_eq!(trial.round(), (Scope::All, None));
    assert_eq!(trial.round().0, Scope::Slice(1));
    assert_eq!(since, Duration::from_secs(START + 10) - OVERLAP, "each question overlaps the one before");
    trial.comparisons.interrupt();
    assert_eq!(trial.round().0, Scope::All);
}

#[test]
fn all_rooms_are_compared_for_a_new_incarnation_after_a_prune_and_if_too_many_have_changed() {
    let mut trial = Trial::new();
    trial.node = NodeId::random();
    assert_eq!([trial.round().0, trial.round().0], [Scope::All, Scope::Slice(0)]);
    trial.answer.prunes += 1;
    assert_eq!([trial.round().0, trial.round().0], [Scope::All, Scope::Slice(1)]);
    trial.answer.is_complete = false;
    assert_eq!([trial.round(), trial.round()], [(Scope::All, None), (Scope::All, None)]);
    // What changed before, and was not listed, is not listed now.
    trial.answer.is_complete = true;
    assert_eq!([trial.round(), trial.round()], [(Scope::All, None), (Scope::Slice(2), None)]);
}

#[test]
fn after_a_jump_of_the_clock_all_rooms_are_compared_until_earlier_transactions_are_over() {
    for forward in [true, false] {
        let mut trial = Trial::new();
        assert_eq!(trial.round().0, Scope::Slice(0));
        let hour = SECOND * 3600;
        let mut scopes = Vec::new();
        for _ in 0..5 {
            trial.now = trial.now.after(SECOND * 5);
            let time = Duration::from_secs(START) + trial.now.since(Tick(0));
            trial.answer.time = if forward { time + hour } else { time - hour };
            let round = trial.ask_now();
            scopes.push(trial.end(round));
        }
        let all = (Scope::All, None);
        assert_eq!(scopes, [all, all, all, (Scope::Slice(1), None), (Scope::Slice(2), None)], "{forward}");
    }
}

#[test]
fn slow_answers_and_adjustments_are_no_jump_of_the_clock() {
    let mut trial = Trial::new();
    assert_eq!(trial.round().0, Scope::Slice(0));
    // The answer arrives three seconds after the database has given it.
    trial.now = trial.now.after(SECOND * 5);
    trial.answer.time += SECOND * 5;
    trial.answer.next = trial.answer.time - OVERLAP;
    let question = trial.comparisons.begin(trial.node, trial.now, 0);
    trial.now = trial.now.after(SECOND * 3);
    let round = trial.comparisons.judge(question, trial.now, &trial.answer.clone());
    assert_eq!(trial.end(round).0, Scope::Slice(1));
    assert_eq!(trial.round().0, Scope::Slice(2));
    trial.now = trial.now.after(SECOND * 5);
    trial.answer.time += SECOND * 6;
    let round = trial.ask_now();
    assert_eq!(trial.end(round).0, Scope::Slice(3));
}

#[test]
fn fewer_writes_than_were_confirmed_show_once_that_the_database_has_lost_changes() {
    let mut trial = Trial::new();
    (trial.confirmed, trial.answer.own_writes) = (5, commits(5));
    assert_eq!(trial.round(), (Scope::Slice(0), None));
    trial.answer.own_writes = commits(6);
    assert_eq!(trial.round(), (Scope::Slice(1), None), "the answer to one is still on its way");
    // Three are lost, and one was made since.
    (trial.confirmed, trial.answer.own_writes) = (7, commits(4));
    let round = trial.ask();
    assert_eq!(round.lost_writes, 3);
    assert_eq!(trial.end(round), (Scope::All, Some(true)));
    trial.confirmed -= 3;
    assert_eq!(trial.round(), (Scope::Slice(2), None), "the own report is no news");
    // The incarnation is not there any more: the next renewal says so.
    trial.answer.own_writes = None;
    assert_eq!(trial.round(), (Scope::Slice(3), None));
}

#[test]
fn a_set_back_that_another_node_or_a_room_has_noticed_concerns_the_rooms_that_have_changed_since() {
    let mut trial = Trial::new();
    trial.room("old", 5, 2);
    assert_eq!(trial.round().0, Scope::Slice(0));
    for _ in 0..3 {
        let _ = trial.round();
    }
    trial.room("new", 1, 24);
    trial.answer.set_backs += 1;
    let round = trial.ask();
    let set_back = round.set_back.as_ref().unwrap();
    let concerned = ["old", "new"].map(|room| set_back.concerns(&RoomName::new(room).unwrap()));
    assert_eq!(concerned, [false, true]);
    assert_eq!(trial.end(round), (Scope::All, Some(false)));
    assert_eq!(trial.round().0, Scope::Slice(4));
    trial.comparisons.note_set_back();
    let round = trial.ask();
    assert!(round.set_back.is_some());
    drop(round);
    assert_eq!(trial.round(), (Scope::All, Some(true)), "the round that noticed it failed");
    assert_eq!(trial.round(), (Scope::Slice(5), None));
    // If it is not known what has changed since, each room may differ.
    trial.comparisons.note_set_back();
    trial.answer.is_complete = false;
    assert!(trial.ask().set_back.unwrap().concerns(&RoomName::new("old").unwrap()));
}

#[test]
fn the_answers_to_commits_that_were_made_after_a_loss_show_no_second_one() {
    let mut trial = Trial::new();
    (trial.confirmed, trial.answer.own_writes) = (100, commits(100));
    assert_eq!(trial.round(), (Scope::Slice(0), None));
    // Three are lost, and two are made since whose answers are on their way.
    trial.answer.own_writes = commits(99);
    let round = trial.ask();
    assert_eq!(round.lost_writes, 1);
    assert_eq!(trial.end(round), (Scope::All, Some(true)));
    trial.confirmed = 102 - 1;
    let round = trial.ask();
    assert_eq!(round.lost_writes, 2, "what is known to be lost counts no more");
    assert_eq!(trial.end(round), (Scope::All, None));
    trial.confirmed -= 2;
    assert_eq!(trial.round(), (Scope::Slice(1), None));
    // Later, it is another loss.
    trial.answer.own_writes = commits(98);
    assert_eq!(trial.round(), (Scope::All, Some(true)));
    // Other evidence counts at once.
    trial.comparisons.note_set_back();
    assert_eq!(trial.round(), (Scope::All, Some(true)));
}

#[test]
fn a_loss_that_two_nodes_have_noticed_and_reported_is_one() {
    for reports in [1, 2] {
        let mut trial = Trial::new();
        trial.comparisons.note_set_back();
        let round = trial.ask();
        let seen = trial.answer.set_backs;
        assert_eq!(round.set_back.as_ref().unwrap().report, Some(Report { seen, count: seen + 1 }));
        trial.comparisons.end(round);
        trial.answer.set_backs += reports;
        assert_eq!(trial.round(), (Scope::Slice(0), None), "{reports}");
    }
}

#[test]
fn a_report_is_due_until_it_has_arrived_and_the_loss_is_no_news_meanwhile() {
    let mut trial = Trial::new();
    trial.comparisons.note_set_back();
    let (seen, round) = (trial.answer.set_backs, trial.ask());
    let report = Report { seen, count: seen + 1 };
    trial.comparisons.end(round);
    for slice in 0..3 {
        assert_eq!(trial.comparisons.unreported(), Some(report));
        let round = trial.ask();
        assert!(round.set_back.is_none());
        assert_eq!(round.scope, Scope::Slice(slice));
        trial.comparisons.end(round);
    }
    // The report of another node about it.
    trial.answer.set_backs += 1;
    assert_eq!(trial.round(), (Scope::Slice(3), None));
    trial.comparisons.reported();
    assert_eq!((trial.round(), trial.comparisons.unreported()), ((Scope::Slice(4), None), None));
    trial.answer.set_backs += 1;
    assert_eq!(trial.round(), (Scope::All, Some(false)));
}

#[test]
fn a_database_that_has_lost_a_report_has_lost_changes() {
    let mut trial = Trial::new();
    let before = trial.answer.set_backs;
    trial.answer.set_backs -= 1;
    let round = trial.ask();
    // A node that had not seen the report that is lost must not take this one for it.
    let report = Some(Report { seen: before - 1, count: before + 1 });
    assert_eq!(round.set_back.as_ref().map(|set_back| set_back.report), Some(report));
    assert_eq!(trial.end(round), (Scope::All, Some(true)));
}

#[test]
fn while_a_jump_of_the_clock_may_hide_changes_a_set_back_concerns_each_room() {
    let mut trial = Trial::new();
    trial.room("lobby", 6, 8);
    assert_eq!(trial.round(), (Scope::Slice(0), None));
    trial.confirmed = 1;
    // The clock is a minute back, and the same version was given a second time.
    trial.now = trial.now.after(SECOND * 5);
    trial.answer.time = Duration::from_secs(START - 60) + trial.now.since(Tick(0));
    trial.answer.rooms[0].changed_at = trial.answer.time - OVERLAP - SECOND;
    let round = trial.ask_now();
    assert!(round.set_back.as_ref().unwrap().concerns(&RoomName::new("lobby").unwrap()));
}

#[test]
fn the_log_has_one_warning_of_a_loss_also_if_the_first_rounds_about_it_fail() {
    let mut trial = Trial::new();
    for _ in 0..2 {
        trial.comparisons.note_set_back();
        for is_new in [true, false, false] {
            let round = trial.ask();
            assert_eq!(trial.comparisons.is_new(&round), is_new);
        }
        let round = trial.ask();
        trial.comparisons.end(round);
        let round = trial.ask();
        assert!(!trial.comparisons.is_new(&round));
        trial.comparisons.end(round);
    }
}

#[test]
fn a_room_that_was_reported_and_has_a_lower_version_or_the_same_one_anew_was_set_back() {
    for (version, changed_at, is_set_back) in [(6, 8, false), (7, 9, false), (5, 8, true), (6, 9, true)] {
        let mut trial = Trial::new();
        trial.room("lobby", 6, 8);
        assert_eq!(trial.round(), (Scope::Slice(0), None));
        trial.room("lobby", version, changed_at);
        let expected = if is_set_back { (Scope::All, Some(true)) } else { (Scope::Slice(1), None) };
        assert_eq!(trial.round(), expected, "{version} {changed_at}");
    }
    // Another epoch has other versions.
    let mut trial = Trial::new();
    trial.room("lobby", 6, 8);
    assert_eq!(trial.round(), (Scope::Slice(0), None));
    trial.epoch = Epoch::random();
    trial.room("lobby", 1, 9);
    assert_eq!(trial.round(), (Scope::Slice(1), None));
}

#[test]
fn all_rooms_are_compared_if_one_that_was_reported_is_missing_although_it_changed_late_enough() {
    let mut trial = Trial::new();
    trial.room("lobby", 6, 8);
    assert_eq!(trial.round(), (Scope::Slice(0), None));
    let room = trial.answer.rooms.remove(0);
    assert_eq!(trial.round(), (Scope::All, None));
    trial.answer.rooms.push(room);
    for slice in 1..5 {
        assert_eq!(trial.round(), (Scope::Slice(slice), None), "in the end, it is left out since it is old");
    }
}

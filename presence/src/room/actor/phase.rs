//! What a room knows, as a state machine, and which readings of the database it needs.

use std::{collections::HashSet, time::Duration};

use crate::{
    clock::Tick,
    name::{Epoch, Version},
};

/// What a room knows. This decides what it may do.
///
/// ```text
/// Cold ---- a reading begins ----> Loading ---- the roster is known ----> Live
///   \----------------- a first change makes the roster known ------------>/
/// any ---- the room fails ----> Recovering ---- its hubs have reported ----> Live, or Loading
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum RoomPhase {
    /// Nothing is known of the roster, and nobody has queried it.
    #[default]
    Cold,
    /// The roster is being read for the first time. Readers wait for it, and members are sent nothing.
    Loading,
    /// The roster is known. A further reading may be under way.
    Live,
    /// The room has failed: it is read again, and its hubs have to report their members. Members are sent nothing, and messages about
    /// presences of this node are deferred.
    Recovering(Recovery),
}

/// The state of a room that has failed and is not live again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recovery {
    /// The hubs that have not reported yet, and until when the room waits for them.
    hubs: HashSet<usize>,
    until: Tick,
    /// The roster has become known since the failure.
    is_known: bool,
}

impl RoomPhase {
    pub(super) fn is_cold(&self) -> bool {
        *self == Self::Cold
    }

    /// Whether the roster is known, so that readers can be answered.
    pub(super) const fn is_known(&self) -> bool {
        matches!(self, Self::Live | Self::Recovering(Recovery { is_known: true, .. }))
    }

    /// Whether members may be sent something, because the roster and the hubs of the members are known.
    pub(super) fn is_live(&self) -> bool {
        *self == Self::Live
    }

    pub(super) const fn is_recovering(&self) -> bool {
        matches!(self, Self::Recovering(_))
    }

    /// A reading of the database begins.
    pub(super) fn reading_begins(&mut self) {
        if self.is_cold() {
            *self = Self::Loading;
        }
    }

    /// The roster is known, by a reading or by a change before the first reading.
    pub(super) fn roster_is_known(&mut self) {
        match self {
            Self::Recovering(recovery) => recovery.is_known = true,
            _ => *self = Self::Live,
        }
    }

    /// The room has failed. It waits for these hubs until `until`.
    pub(super) fn fails(&mut self, hubs: HashSet<usize>, until: Tick) {
        *self = Self::Recovering(Recovery { hubs, until, is_known: false });
    }

    /// A hub has reported. Returns whether the room still waited for it.
    pub(super) fn hub_reported(&mut self, hub: usize) -> bool {
        match self {
            Self::Recovering(recovery) => recovery.hubs.remove(&hub),
            _ => false,
        }
    }

    /// Until when the room waits for its hubs.
    pub(super) const fn deadline(&self) -> Option<Tick> {
        match self {
            Self::Recovering(recovery) => Some(recovery.until),
            _ => None,
        }
    }

    /// Ends the recovery if all hubs have reported, or if their time is over. Returns whether it has ended.
    pub(super) fn recovers(&mut self, now: Tick) -> bool {
        let Self::Recovering(Recovery { hubs, until, is_known }) = self else { return false };
        if !hubs.is_empty() && *until > now {
            return false;
        }
        // A reading begins with each recovery, and is repeated until it succeeds.
        *self = if *is_known { Self::Live } else { Self::Loading };
        true
    }
}

/// The position of a room in its changes; `None`: there is no such room.
type Position = Option<(Epoch, Version)>;

/// The readings of the database by one room.
#[derive(Debug)]
pub(super) struct Readings {
    last: u64,
    /// The last reading has not ended yet, or it failed and is repeated soon.
    is_under_way: bool,
    /// The last reading is only of changes.
    is_of_changes: bool,
    /// When the last reading of the whole room succeeded.
    all_read: Option<Tick>,
    begun: Tick,
    rests_until: Tick,
    catch_up: Option<CatchUp>,
}

/// The database is ahead of the room: the position that the room has to reach, and until when it waits to reach that without a reading.
#[derive(Debug, Clone, Copy)]
struct CatchUp {
    to: Position,
    until: Tick,
}

impl Readings {
    pub(super) const fn new(now: Tick) -> Self {
        Self {
            last: 0,
            is_under_way: false,
            is_of_changes: false,
            all_read: None,
            begun: now,
            rests_until: now,
            catch_up: None,
        }
    }

    /// The number of the last reading.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    pub(super) const fn is_under_way(&self) -> bool {
        self.is_under_way
    }

    /// When the last reading of the whole room succeeded.
    pub(super) const fn all_read(&self) -> Option<Tick> {
        self.all_read
    }

    /// Begins a reading of the whole room, and returns its number; `None` if one is under way. It replaces a reading of changes.
    pub(super) fn begin(&mut self, now: Tick) -> Option<u64> {
        if self.is_under_way && !self.is_of_changes {
            return None;
        }
        (self.is_under_way, self.is_of_changes, self.begun, self.catch_up) = (true, false, now, None);
        self.last += 1;
        Some(self.last)
    }

    /// Begins a reading of the changes that are missing, and returns its number; `None` if a reading is under way.
    pub(super) fn begin_changes(&mut self, now: Tick) -> Option<u64> {
        if self.is_under_way {
            return None;
        }
        let number = self.begin(now);
        self.is_of_changes = true;
        number
    }

    /// The last reading has succeeded. The next one begins after a pause of the same length, but of `most` at most. Otherwise a large room
    /// that changes all the time on several nodes would be read all the time.
    pub(super) fn succeed(&mut self, now: Tick, most: Duration) {
        self.is_under_way = false;
        if !self.is_of_changes {
            self.all_read = Some(now);
        }
        self.rests_until = now.after(now.since(self.begun).min(most));
    }

    /// The last reading has ended without a result: another may begin.
    pub(super) const fn give_up(&mut self) {
        self.is_under_way = false;
    }

    /// The room has failed. It does not wait for the last reading any more, and the next one contains what was missing.
    pub(super) const fn start_over(&mut self) {
        self.is_under_way = false;
        (self.all_read, self.catch_up) = (None, None);
    }

    /// The database is ahead of the room. The missing changes may arrive without a reading until `until`.
    pub(super) fn wait_for(&mut self, to: Position, until: Tick) {
        let until = self.catch_up.map_or(until, |before| before.until.min(until));
        self.catch_up = Some(CatchUp { to, until });
    }

    /// The room is at `position`, so the missing changes may have arrived.
    pub(super) fn note_position(&mut self, position: Position) {
        if let (Some(CatchUp { to: Some((epoch, version)), .. }), Some((known, at))) = (self.catch_up, position)
            && epoch == known
            && version <= at
        {
            self.catch_up = None;
        }
    }

    /// When the next reading is due. `missing` is when one is due because of a gap in the changes. While a reading is under way, none
    /// is due.
    pub(super) fn due(&self, missing: Option<Tick>) -> Option<Tick> {
        let at = missing.into_iter().chain(self.catch_up.map(|catch_up| catch_up.until)).min()?;
        (!self.is_under_way).then(|| at.max(self.rests_until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recovering(hubs: &[usize], is_known: bool) -> RoomPhase {
        RoomPhase::Recovering(Recovery { hubs: hubs.iter().copied().collect(), until: Tick(100), is_known })
    }

    #[test]
    fn each_event_leads_from_each_phase_to_the_phase_that_it_should() {
        use RoomPhase::{Cold, Live, Loading};
        let all = [Cold, Loading, Live, recovering(&[1], false), recovering(&[1], true)];
        let after = |event: fn(&mut RoomPhase)| {
            all.clone().map(|mut phase| {
                event(&mut phase);
                phase
            })
        };
        let [waiting, known] = [recovering(&[1], false), recovering(&[1], true)];
        assert_eq!(after(RoomPhase::reading_begins), [Loading, Loading, Live, waiting.clone(), known.clone()]);
        assert_eq!(after(RoomPhase::roster_is_known), [Live, Live, Live, known.clone(), known.clone()]);
        let failed = || recovering(&[2, 3], false);
        let all_failed = [failed(), failed(), failed(), failed(), failed()];
        assert_eq!(after(|phase| phase.fails([2, 3].into(), Tick(100))), all_failed);
        assert_eq!(after(|phase| _ = phase.recovers(Tick(99))), all, "the hub has until 100");
        assert_eq!(after(|phase| _ = phase.recovers(Tick(100))), [Cold, Loading, Live, Loading, Live]);
        let reported = |phase: &mut RoomPhase| {
            phase.hub_reported(1);
            phase.recovers(Tick(0));
        };
        assert_eq!(after(reported), [Cold, Loading, Live, Loading, Live]);
    }

    #[test]
    fn a_room_waits_for_each_hub_once_and_only_while_it_recovers() {
        let mut phase = recovering(&[1, 2], true);
        assert_eq!((phase.hub_reported(1), phase.hub_reported(1), phase.recovers(Tick(0))), (true, false, false));
        assert_eq!((phase.deadline(), phase.is_known(), phase.is_live()), (Some(Tick(100)), true, false));
        assert_eq!((phase.hub_reported(2), phase.recovers(Tick(0)), phase.recovers(Tick(0))), (true, true, false));
        assert_eq!((phase.deadline(), phase.is_known(), phase.is_live()), (None, true, true));
        assert!(!phase.hub_reported(2));
    }

    #[test]
    fn a_room_is_read_once_at_a_time_and_rests_as_long_as_that_took() {
        let mut readings = Readings::new(Tick(0));
        assert_eq!((readings.begin(Tick(10)), readings.begin(Tick(11))), (Some(1), None));
        assert_eq!(readings.due(Some(Tick(5))), None, "one is under way");
        readings.succeed(Tick(40), Duration::from_millis(50));
        assert_eq!((readings.due(None), readings.due(Some(Tick(5)))), (None, Some(Tick(70))));
        assert_eq!(readings.begin(Tick(70)), Some(2));
        readings.succeed(Tick(170), Duration::from_millis(50));
        assert_eq!((readings.due(Some(Tick(5))), readings.due(Some(Tick(500)))), (Some(Tick(220)), Some(Tick(500))));
        readings.begin(Tick(220));
        readings.start_over();
        assert_eq!((readings.begin(Tick(230)), readings.last()), (Some(4), 4));
    }

    #[test]
    fn a_room_that_the_database_is_ahead_of_is_read_at_the_earliest_time_unless_it_catches_up() {
        let (mut readings, epoch) = (Readings::new(Tick(0)), Epoch::random());
        let at = |version| Some((epoch, Version(version)));
        readings.wait_for(at(7), Tick(50));
        readings.wait_for(at(8), Tick(90));
        readings.note_position(at(7));
        assert_eq!(readings.due(None), Some(Tick(50)));
        readings.note_position(Some((Epoch::random(), Version(9))));
        assert_eq!(readings.due(Some(Tick(30))), Some(Tick(30)), "that is another room by this name");
        readings.note_position(at(8));
        assert_eq!(readings.due(None), None);
        readings.wait_for(None, Tick(60));
        readings.note_position(at(9));
        assert_eq!(
            readings.due(None),
            Some(Tick(60)),
            "the room does not exist any more, and only a reading shows that"
        );
    }
}

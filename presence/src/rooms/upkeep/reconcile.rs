//! How changes of other nodes arrive: rooms in memory are compared with the database.

use std::collections::HashMap;

use tracing::{debug, warn};

use crate::{
    Error, Result,
    name::{NodeId, RoomName},
    node::{Report, SLICES, Scope, SetBack},
    room::ToRoom,
    store::{NodeStore, RecentChanges, RoomStore, Store},
    telemetry::report,
};

use super::Upkeep;

/// How many rooms are compared by name in one query.
const COMPARE: usize = 1_000;
/// How many changed rooms a node asks for. If more have changed than it has in memory, it compares those in memory by name.
const CHANGES: std::ops::RangeInclusive<usize> = 1_000..=10_000;

impl Upkeep {
    /// Compares all rooms in memory.
    pub(super) async fn reconcile(&self) -> Result<usize> {
        let names = self.rooms.table().names();
        self.compare(&names, None).await?;
        Ok(names.len())
    }

    /// One of the rounds that a node does by itself. While it knows what it has seen, it asks for what has changed since, and compares only a
    /// slice of the rooms by name.
    pub(super) async fn reconcile_recent(&self) -> Result<()> {
        let registration = &self.node.registration;
        let Some(node) = self.node.id() else {
            registration.comparisons().interrupt();
            return self.reconcile().await.map(drop);
        };
        let asked = self.node.now();
        let own_writes = self.node.writer.own_writes();
        let (confirmed, at_rest) = (own_writes.confirmed(node), own_writes.at_rest(node));
        let question = registration.comparisons().begin(node, asked, confirmed);
        let limit = self.rooms.table().len().clamp(*CHANGES.start(), *CHANGES.end()) as u64;
        let changes = match self.node.bounded(self.node.store.recent_changes(node, question.since, limit)).await {
            // The database works, and there is something wrong with what was asked for.
            Err(refused @ Error::StoreRefused(_)) => {
                warn!(error = %report(&refused), "the database does not say what has changed; all rooms are compared");
                return self.reconcile().await.map(drop);
            }
            changes => changes?,
        };
        let has_renewals = changes.own_writes.map(|own| own.renewals);
        // From the moment at which this node knows of another. What it changed before, the other reads with the whole room.
        let has_others = changes.others > 0;
        self.node.store.keep_changes(has_others);
        let round = registration.comparisons().judge(question, self.node.now(), &changes);
        if let Some(set_back) = &round.set_back {
            if registration.comparisons().is_new(&round) {
                warn!(
                    lost = round.lost_writes,
                    is_reported = set_back.report.is_none(),
                    "the database has lost changes that it had confirmed; rooms are read again, and connected presences join again"
                );
            }
        } else {
            let RecentChanges { rooms, .. } = changes;
            for changed in rooms {
                let position = Some((changed.epoch, changed.version));
                self.rooms.table().send_running(&changed.room, ToRoom::Position { position, queried: asked });
            }
        }
        let names = match round.scope {
            Scope::All => self.rooms.table().names(),
            Scope::Slice(slice) => self.rooms.table().slice(slice, SLICES),
        };
        self.compare(&names, round.set_back.as_ref()).await?;
        if round.set_back.is_some() {
            self.open_rooms_of(node).await?;
        }
        own_writes.lose(node, round.lost_writes);
        if let Some(renewals) = has_renewals.filter(|_| round.lost_writes == 0) {
            own_writes.settle(node, at_rest, renewals);
        }
        registration.comparisons().end(round);
        self.report_set_back().await;
        let forgets = registration.comparisons().forgets(has_others);
        if let Some(age) = forgets {
            self.node.bounded(self.node.store.forget_changes(age)).await?;
            registration.comparisons().forgot(has_others);
        }
        Ok(())
    }

    /// Compares these rooms by name.
    async fn compare(&self, names: &[RoomName], set_back: Option<&SetBack>) -> Result<()> {
        for names in names.chunks(COMPARE) {
            let queried = self.node.now();
            let positions = self.node.bounded(self.node.store.positions(names.into())).await?;
            let mut positions: HashMap<_, _> =
                positions.into_iter().map(|(name, epoch, version)| (name, (epoch, version))).collect();
            for name in names {
                let position = positions.remove(name);
                let message = match set_back {
                    Some(set_back) => ToRoom::WentBack { position, may_differ: set_back.concerns(name) },
                    None => ToRoom::Position { position, queried },
                };
                self.rooms.table().send_running(name, message);
            }
        }
        Ok(())
    }

    /// Has rooms read in which the database has presences of this node, although they are not in memory here: the leaves of these presences
    /// are lost. A room that is read removes presences of its node that have no socket.
    async fn open_rooms_of(&self, node: NodeId) -> Result<()> {
        let rooms = self.node.bounded(self.node.store.rooms_with_presences_of(node)).await?;
        for room in rooms.iter().filter(|room| !self.rooms.table().is_running(room)) {
            self.rooms.send_to_room(room, ToRoom::WentBack { position: None, may_differ: true });
        }
        Ok(())
    }

    /// Reports a loss of changes to the other nodes: what they have made since may have the versions of what was lost. A report that fails is
    /// sent again after the next round, and keeps no room from being compared.
    async fn report_set_back(&self) {
        let comparisons = || self.node.registration.comparisons();
        let Some(Report { seen, count }) = comparisons().unreported() else { return };
        match self.node.bounded(self.node.store.report_set_back(seen, count)).await {
            Ok(()) => comparisons().reported(),
            Err(error) => {
                debug!(error = %report(&error), "a loss of changes could not be reported to the other nodes; it will be tried again");
            }
        }
    }
}

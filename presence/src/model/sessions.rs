//! Who of a room, on this node, can be resumed by what, and who is held.
//!
//! A presence that can be resumed is known by its token: while its socket lives, so that a newer socket takes it over, and
//! after that is lost, until its grace is over. The newer socket has asked for a presence of its own, and goes on calling it
//! by that name; here is what it is called by everyone else.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use crate::{
    clock::Tick,
    name::{ChannelName, PresenceId},
    session::{Session, SessionHash},
};

use super::Presence;

/// The presences of this node in a room that have resume tokens.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    tokens: HashMap<SessionHash, PresenceId>,
    own: HashMap<PresenceId, Own>,
    /// What a socket calls a presence that it resumed, and what that is.
    asked: HashMap<PresenceId, PresenceId>,
    lost: HashMap<PresenceId, Lost>,
    over: BTreeSet<(Tick, PresenceId)>,
}

#[derive(Debug)]
struct Own {
    /// `None` once it cannot be resumed any more.
    session: Option<Session>,
    /// What its socket calls it, if it has resumed it.
    asked: Option<PresenceId>,
    /// The socket for which the database is being told that the presence is its own.
    claiming: Option<ChannelName>,
    /// No reading of the database up to this one shows the last claim for certain.
    read: u64,
    /// The database was told to hold it although its socket still lives.
    held_until: Option<Tick>,
}

/// A presence that is kept although its socket is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) presence: Arc<Presence>,
    until: Tick,
    /// For how long in all the node had stood still when that was said: only what it stood still since then extends the grace.
    stood: Duration,
}

impl Sessions {
    /// Whether nobody is held.
    pub(crate) fn is_idle(&self) -> bool {
        self.lost.is_empty()
    }

    /// Who has this token.
    pub(crate) fn owner(&self, hash: &SessionHash) -> Option<PresenceId> {
        self.tokens.get(hash).copied()
    }

    pub(crate) fn session(&self, id: PresenceId) -> Option<Session> {
        self.own.get(&id)?.session
    }

    /// Those with a token: who is here, who joins, and who is lost.
    pub(crate) fn ids(&self) -> Vec<PresenceId> {
        self.own.keys().copied().collect()
    }

    /// The presence that a socket calls so.
    pub(crate) fn resolve(&self, id: PresenceId) -> PresenceId {
        self.asked.get(&id).copied().unwrap_or(id)
    }

    /// What its socket calls the presence.
    pub(crate) fn called(&self, id: PresenceId) -> PresenceId {
        self.own.get(&id).and_then(|own| own.asked).unwrap_or(id)
    }

    /// The socket of `channel` comes with a token, and calls the presence `asked`. The database is told that `id` is its own.
    pub(crate) fn claim(&mut self, id: PresenceId, asked: PresenceId, session: Session, channel: ChannelName) {
        self.forget(id);
        self.tokens.insert(session.hash, id);
        let asked = (asked != id).then_some(asked);
        asked.map(|asked| self.asked.insert(asked, id));
        self.own.insert(id, Own { session: Some(session), asked, claiming: Some(channel), read: 0, held_until: None });
    }

    /// The database is told once more that the presence belongs to the socket of `channel`.
    pub(crate) fn claim_again(&mut self, id: PresenceId, channel: ChannelName) {
        if let Some(own) = self.own.get_mut(&id) {
            own.claiming = Some(channel);
        }
    }

    /// The database was told that the presence belongs to the socket of `channel`. It was asked for `reading` by then.
    pub(crate) fn claimed(&mut self, id: PresenceId, channel: &ChannelName, reading: u64) {
        if let Some(own) = self.own.get_mut(&id).filter(|own| own.claiming.as_ref() == Some(channel)) {
            own.claiming = None;
            own.read = reading;
        }
    }

    /// Whether a reading of the database tells who has the presence.
    pub(crate) fn believes(&self, id: PresenceId, reading: u64) -> bool {
        self.own.get(&id).is_none_or(|own| own.claiming.is_none() && reading > own.read)
    }

    /// The presence that came with a token turned out to be another that was there.
    pub(crate) fn became(&mut self, id: PresenceId, other: PresenceId) {
        let Some(own) = self.own.remove(&id) else { return };
        self.forget(other);
        let asked = own.asked.unwrap_or(id);
        self.asked.insert(asked, other);
        own.session.map(|session| self.tokens.insert(session.hash, other));
        self.own.insert(other, Own { asked: Some(asked), ..own });
    }

    /// The presence cannot be resumed any more; but its socket still calls it by its name.
    pub(crate) fn drop_token(&mut self, id: PresenceId) {
        if let Some(session) = self.own.get_mut(&id).and_then(|own| own.session.take()) {
            self.tokens.remove(&session.hash);
        }
    }

    /// The presence is no longer this node's, or no more.
    pub(crate) fn forget(&mut self, id: PresenceId) {
        self.find(id);
        self.drop_token(id);
        if let Some(asked) = self.own.remove(&id).and_then(|own| own.asked) {
            self.asked.remove(&asked);
        }
    }

    /// The database was told to hold the presence until then, although its socket still lives.
    pub(crate) fn hold_until(&mut self, id: PresenceId, until: Tick) {
        if let Some(own) = self.own.get_mut(&id) {
            own.held_until = Some(until);
        }
    }

    pub(crate) fn held_until(&self, id: PresenceId) -> Option<Tick> {
        self.own.get(&id)?.held_until
    }

    /// The socket of a presence with a token is lost. Until now the node has stood still for `stood` in all.
    pub(crate) fn lose(&mut self, presence: Arc<Presence>, until: Tick, stood: Duration) {
        let id = presence.id;
        self.find(id);
        self.over.insert((until, id));
        self.lost.insert(id, Lost { presence, until, stood });
    }

    /// Extends the graces that are over at `now` by the time for which the node stood still within them: until now it has stood
    /// still for `stood` in all. Returns those who so are still held, and for how long.
    pub(crate) fn extend_overdue(&mut self, now: Tick, stood: Duration) -> Vec<(Arc<Presence>, Duration)> {
        let over: Vec<_> = self.over.iter().take_while(|(until, _)| *until <= now).map(|(_, id)| *id).collect();
        let mut extended = Vec::new();
        for id in over {
            let Some(lost) = self.lost.get_mut(&id).filter(|lost| lost.stood < stood) else { continue };
            self.over.remove(&(lost.until, id));
            lost.until = lost.until.after(stood.saturating_sub(lost.stood));
            lost.stood = stood;
            self.over.insert((lost.until, id));
            if lost.until > now {
                extended.push((lost.presence.clone(), lost.until.since(now)));
            }
        }
        extended
    }

    /// Takes in what a change says of one who is lost. Returns the presence as it is now: still held, and by the channel of its lost
    /// socket.
    pub(crate) fn update_lost(&mut self, now: &Presence) -> Option<Arc<Presence>> {
        let lost = self.lost.get_mut(&now.id)?;
        lost.presence = now.in_hands_of(&lost.presence);
        Some(lost.presence.clone())
    }

    /// Those who are lost.
    pub(crate) fn lost(&self, id: PresenceId) -> Option<&Lost> {
        self.lost.get(&id)
    }

    /// All who are lost.
    pub(crate) fn all_lost(&self) -> impl Iterator<Item = &Lost> {
        self.lost.values()
    }

    /// The presence is not lost any more.
    pub(crate) fn find(&mut self, id: PresenceId) -> Option<Lost> {
        let lost = self.lost.remove(&id)?;
        self.over.remove(&(lost.until, id));
        Some(lost)
    }

    /// When the next grace is over.
    pub(crate) fn next(&self) -> Option<Tick> {
        self.over.first().map(|(until, _)| *until)
    }

    /// Those of the lost who are `concerned`. They can no longer be resumed.
    pub(crate) fn take_lost(&mut self, concerned: impl Fn(&Presence) -> bool) -> Vec<Lost> {
        let ids: Vec<_> =
            self.lost.values().filter(|lost| concerned(&lost.presence)).map(|lost| lost.presence.id).collect();
        ids.into_iter().filter_map(|id| self.take(id)).collect()
    }

    /// One of the lost, who can no longer be resumed.
    fn take(&mut self, id: PresenceId) -> Option<Lost> {
        let lost = self.find(id);
        self.forget(id);
        lost
    }

    /// Those whose grace is over at `now`. They can no longer be resumed.
    pub(crate) fn take_overdue(&mut self, now: Tick) -> Vec<Lost> {
        let mut over = Vec::new();
        while let Some((_, id)) = self.over.first().copied().filter(|(until, _)| *until <= now) {
            over.extend(self.take(id));
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::model::tests::truth;

    fn session(n: u8) -> Session {
        Session { hash: SessionHash::from_bytes([n; 32]), grace: Duration::from_secs(10) }
    }

    fn channel(n: u8) -> ChannelName {
        ChannelName::new(format!("socket {n}")).unwrap()
    }

    /// What happens to one of four presences with one of three tokens.
    #[derive(Debug, Clone)]
    enum Step {
        Claim { who: u8, asked: u8, token: u8 },
        Lose { who: u8, until: u64 },
        Find { who: u8 },
        Forget { who: u8 },
        DropToken { who: u8 },
        Became { who: u8, other: u8 },
        Pass { now: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..4_u8, 10..14_u8, 0..3_u8).prop_map(|(who, asked, token)| Step::Claim { who, asked, token }),
            4 => (0..4_u8, 0..40_u64).prop_map(|(who, until)| Step::Lose { who, until }),
            2 => (0..4_u8).prop_map(|who| Step::Find { who }),
            1 => (0..4_u8).prop_map(|who| Step::Forget { who }),
            1 => (0..4_u8).prop_map(|who| Step::DropToken { who }),
            1 => (0..4_u8, 0..4_u8).prop_map(|(who, other)| Step::Became { who, other }),
            3 => (0..40_u64).prop_map(|now| Step::Pass { now }),
        ]
    }

    proptest! {
        /// A room claims a token only for one who does not have it yet, or whom it takes over.
        #[test]
        fn a_token_has_one_owner_and_who_is_lost_is_over_when_its_time_comes_and_not_before(
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let mut sessions = Sessions::default();
            let mut own: BTreeMap<u8, (Option<u8>, u8)> = BTreeMap::new();
            let mut lost: BTreeMap<u8, u64> = BTreeMap::new();
            let id = |n: u8| truth::presence(n).id;
            for step in steps {
                match step {
                    Step::Claim { who, asked, token } => {
                        // As rooms do: the owner of a token is taken over, and a name is that of one presence.
                        let who = own.iter().find(|(_, (known, _))| *known == Some(token)).map_or(who, |(who, _)| *who);
                        if own.iter().any(|(other, (_, name))| *name == asked && *other != who) {
                            continue;
                        }
                        sessions.claim(id(who), id(asked), session(token), channel(asked));
                        lost.remove(&who);
                        own.insert(who, (Some(token), asked));
                    }
                    Step::Lose { who, until } if own.contains_key(&who) => {
                        sessions.lose(truth::presence(who), Tick(until), Duration::ZERO);
                        lost.insert(who, until);
                    }
                    Step::Lose { .. } => {}
                    Step::Find { who } => {
                        prop_assert_eq!(sessions.find(id(who)).is_some(), lost.remove(&who).is_some());
                    }
                    Step::Forget { who } => {
                        sessions.forget(id(who));
                        own.remove(&who);
                        lost.remove(&who);
                    }
                    Step::DropToken { who } => {
                        sessions.drop_token(id(who));
                        own.entry(who).and_modify(|(token, _)| *token = None);
                    }
                    Step::Became { who, other } if who != other && !lost.contains_key(&who) => {
                        sessions.became(id(who), id(other));
                        if let Some(was) = own.remove(&who) {
                            lost.remove(&other);
                            own.insert(other, was);
                        }
                    }
                    Step::Became { .. } => {}
                    Step::Pass { now } => {
                        let mut over: Vec<_> = sessions.take_overdue(Tick(now)).iter().map(|lost| lost.presence.id).collect();
                        over.sort_unstable();
                        let mut due: Vec<_> = lost.iter().filter(|(_, until)| **until <= now).map(|(who, _)| *who).collect();
                        lost.retain(|_, until| *until > now);
                        own.retain(|who, _| !due.contains(who));
                        due.sort_unstable();
                        prop_assert_eq!(over, due.into_iter().map(id).collect::<Vec<_>>());
                    }
                }
                prop_assert_eq!(sessions.is_idle(), lost.is_empty());
                prop_assert_eq!(sessions.next(), lost.values().min().map(|until| Tick(*until)));
                for token in 0..3 {
                    let owner = own.iter().find(|(_, (known, _))| *known == Some(token)).map(|(who, _)| id(*who));
                    prop_assert_eq!(sessions.owner(&session(token).hash), owner);
                }
                for who in 0..4 {
                    let known = own.get(&who);
                    prop_assert_eq!(sessions.session(id(who)), known.and_then(|(token, _)| token.map(session)));
                    prop_assert_eq!(sessions.lost(id(who)).is_some(), lost.contains_key(&who));
                    prop_assert_eq!(sessions.called(id(who)), known.map_or(id(who), |(_, asked)| id(*asked)));
                }
                for asked in 10..14 {
                    let owner = own.iter().find(|(_, (_, name))| *name == asked).map(|(who, _)| id(*who));
                    prop_assert_eq!(sessions.resolve(id(asked)), owner.unwrap_or(id(asked)));
                }
                // Nothing is kept of those who are gone.
                prop_assert_eq!((sessions.own.len(), sessions.asked.len()), (own.len(), own.len()));
            }
        }
    }

    #[test]
    fn a_grace_is_extended_by_what_the_node_stood_still_within_it_and_by_no_more() {
        let (mut sessions, secs) = (Sessions::default(), Duration::from_secs);
        // The first was lost after a standstill of 7 s, and then the node stands still for 4 s; the second is lost after that.
        sessions.lose(truth::presence(1), Tick(10_000), secs(7));
        sessions.lose(truth::presence(2), Tick(11_000), secs(11));
        assert_eq!(sessions.extend_overdue(Tick(9_999), secs(11)), [], "nobody's is over yet");
        assert_eq!(sessions.extend_overdue(Tick(11_000), secs(11)), [(truth::presence(1), secs(3))]);
        assert_eq!(sessions.extend_overdue(Tick(11_000), secs(11)), [], "once only");
        assert_eq!(sessions.take_overdue(Tick(11_000)).len(), 1, "the second's is over");
        assert_eq!((sessions.next(), sessions.extend_overdue(Tick(14_000), secs(11))), (Some(Tick(14_000)), vec![]));
        assert_eq!(sessions.take_overdue(Tick(14_000)).len(), 1);
    }

    #[test]
    fn a_reading_from_before_a_claim_was_written_tells_nothing_of_it() {
        let (mut sessions, id) = (Sessions::default(), truth::presence(1).id);
        sessions.claim(id, id, session(1), channel(1));
        assert!(!sessions.believes(id, 7), "it is under way");
        sessions.claimed(id, &channel(0), 3);
        assert!(!sessions.believes(id, 7), "that was the claim of a former socket");
        sessions.claimed(id, &channel(1), 7);
        assert!(!sessions.believes(id, 7), "that reading may have begun before");
        assert!(sessions.believes(id, 8));
        sessions.claim_again(id, channel(1));
        assert!(!sessions.believes(id, 9));
    }
}

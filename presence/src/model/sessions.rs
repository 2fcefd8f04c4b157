//! The resume tokens of the presences of this node in one room, and its held presences.
//!
//! A token leads to its presence while the socket is alive, so that a newer socket can resume it, and then until the grace expires. The
//! newer socket has requested a presence with an id of its own, and keeps using this id. Here it is an alias of the id that everyone else
//! uses.

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
    own: HashMap<PresenceId, SessionEntry>,
    /// For each alias, the id of the resumed presence.
    aliases: HashMap<PresenceId, PresenceId>,
    lost: HashMap<PresenceId, Lost>,
    expiries: BTreeSet<(Tick, PresenceId)>,
}

#[derive(Debug)]
struct SessionEntry {
    /// `None` if it can no longer be resumed.
    session: Option<Session>,
    /// What its socket calls it, if it has resumed it.
    alias: Option<PresenceId>,
    /// The socket whose claim is being written to the database.
    claiming: Option<ChannelName>,
    /// No load of the database up to this one shows the last claim for certain.
    confirmed_after: u64,
    /// Until when the database holds the presence, although its socket is still alive.
    held_until: Option<Tick>,
}

/// A presence that is kept although its socket is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) presence: Arc<Presence>,
    until: Tick,
    /// The total standstill of the node when the grace began. Only a later standstill extends the grace.
    stood: Duration,
}

impl Sessions {
    /// Whether no presence is held.
    pub(crate) fn is_idle(&self) -> bool {
        self.lost.is_empty()
    }

    /// The presence with this token.
    pub(crate) fn owner(&self, hash: &SessionHash) -> Option<PresenceId> {
        self.tokens.get(hash).copied()
    }

    pub(crate) fn session(&self, id: PresenceId) -> Option<Session> {
        self.own.get(&id)?.session
    }

    /// All presences with a token: supervised, joining and held ones.
    pub(crate) fn ids(&self) -> Vec<PresenceId> {
        self.own.keys().copied().collect()
    }

    /// The id of the presence that a socket means by `id`.
    pub(crate) fn canonical_id(&self, id: PresenceId) -> PresenceId {
        self.aliases.get(&id).copied().unwrap_or(id)
    }

    /// The id that the socket of the presence uses.
    pub(crate) fn alias_of(&self, id: PresenceId) -> PresenceId {
        self.own.get(&id).and_then(|own| own.alias).unwrap_or(id)
    }

    /// The socket of `channel` claims the presence `id` with a token, and uses `alias` for it. The claim is being written.
    pub(crate) fn claim(&mut self, id: PresenceId, alias: PresenceId, session: Session, channel: ChannelName) {
        self.forget(id);
        self.tokens.insert(session.hash, id);
        let alias = (alias != id).then_some(alias);
        alias.map(|alias| self.aliases.insert(alias, id));
        self.own.insert(
            id,
            SessionEntry {
                session: Some(session),
                alias,
                claiming: Some(channel),
                confirmed_after: 0,
                held_until: None,
            },
        );
    }

    /// The claim of the socket of `channel` is written again.
    pub(crate) fn claim_again(&mut self, id: PresenceId, channel: ChannelName) {
        if let Some(own) = self.own.get_mut(&id) {
            own.claiming = Some(channel);
        }
    }

    /// The claim of the socket of `channel` was written. By then, the loads up to number `load` had begun.
    pub(crate) fn claimed(&mut self, id: PresenceId, channel: &ChannelName, load: u64) {
        if let Some(own) = self.own.get_mut(&id).filter(|own| own.claiming.as_ref() == Some(channel)) {
            own.claiming = None;
            own.confirmed_after = load;
        }
    }

    /// Whether the owner of the presence in this load is current: the load began after the last claim was written.
    pub(crate) fn is_confirmed_by(&self, id: PresenceId, load: u64) -> bool {
        self.own.get(&id).is_none_or(|own| own.claiming.is_none() && load > own.confirmed_after)
    }

    /// The presence that was claimed turned out to be `other`, which existed already.
    pub(crate) fn became(&mut self, id: PresenceId, other: PresenceId) {
        let Some(own) = self.own.remove(&id) else { return };
        self.forget(other);
        let alias = own.alias.unwrap_or(id);
        self.aliases.insert(alias, other);
        own.session.map(|session| self.tokens.insert(session.hash, other));
        self.own.insert(other, SessionEntry { alias: Some(alias), ..own });
    }

    /// The presence can no longer be resumed. Its alias stays.
    pub(crate) fn drop_token(&mut self, id: PresenceId) {
        if let Some(session) = self.own.get_mut(&id).and_then(|own| own.session.take()) {
            self.tokens.remove(&session.hash);
        }
    }

    /// The presence belongs to another node, or has left.
    pub(crate) fn forget(&mut self, id: PresenceId) {
        self.end_hold(id);
        self.drop_token(id);
        if let Some(alias) = self.own.remove(&id).and_then(|own| own.alias) {
            self.aliases.remove(&alias);
        }
    }

    /// The presence is held in the database until then, although its socket is still alive.
    pub(crate) fn hold_until(&mut self, id: PresenceId, until: Tick) {
        if let Some(own) = self.own.get_mut(&id) {
            own.held_until = Some(until);
        }
    }

    pub(crate) fn held_until(&self, id: PresenceId) -> Option<Tick> {
        self.own.get(&id)?.held_until
    }

    /// Holds a presence whose socket was lost. `stood` is the total standstill of the node so far.
    pub(crate) fn lose(&mut self, presence: Arc<Presence>, until: Tick, stood: Duration) {
        let id = presence.id;
        self.end_hold(id);
        self.expiries.insert((until, id));
        self.lost.insert(id, Lost { presence, until, stood });
    }

    /// Extends the graces that have expired at `now` by the standstill within them. `stood` is the total standstill of the node so far.
    /// Returns the presences that are still held, and for how long.
    pub(crate) fn extend_overdue(&mut self, now: Tick, stood: Duration) -> Vec<(Arc<Presence>, Duration)> {
        let over: Vec<_> = self.expiries.iter().take_while(|(until, _)| *until <= now).map(|(_, id)| *id).collect();
        let mut extended = Vec::new();
        for id in over {
            let Some(lost) = self.lost.get_mut(&id).filter(|lost| lost.stood < stood) else { continue };
            self.expiries.remove(&(lost.until, id));
            lost.until = lost.until.after(stood.saturating_sub(lost.stood));
            lost.stood = stood;
            self.expiries.insert((lost.until, id));
            if lost.until > now {
                extended.push((lost.presence.clone(), lost.until.since(now)));
            }
        }
        extended
    }

    /// Applies a change to a held presence. Returns the presence as it is now: held, and with the channel of its lost socket.
    pub(crate) fn update_lost(&mut self, now: &Presence) -> Option<Arc<Presence>> {
        let lost = self.lost.get_mut(&now.id)?;
        lost.presence = now.with_owner_of(&lost.presence);
        Some(lost.presence.clone())
    }

    /// The held presence with this id.
    pub(crate) fn lost(&self, id: PresenceId) -> Option<&Lost> {
        self.lost.get(&id)
    }

    /// All held presences.
    pub(crate) fn all_lost(&self) -> impl Iterator<Item = &Lost> {
        self.lost.values()
    }

    /// Ends the hold of a presence.
    pub(crate) fn end_hold(&mut self, id: PresenceId) -> Option<Lost> {
        let lost = self.lost.remove(&id)?;
        self.expiries.remove(&(lost.until, id));
        Some(lost)
    }

    /// When the next grace expires.
    pub(crate) fn next_expiry(&self) -> Option<Tick> {
        self.expiries.first().map(|(until, _)| *until)
    }

    /// Takes the held presences that match. They can no longer be resumed.
    pub(crate) fn take_lost(&mut self, matches: impl Fn(&Presence) -> bool) -> Vec<Lost> {
        let ids: Vec<_> =
            self.lost.values().filter(|lost| matches(&lost.presence)).map(|lost| lost.presence.id).collect();
        ids.into_iter().filter_map(|id| self.take(id)).collect()
    }

    /// Takes a held presence. It can no longer be resumed.
    fn take(&mut self, id: PresenceId) -> Option<Lost> {
        let lost = self.end_hold(id);
        self.forget(id);
        lost
    }

    /// Takes the presences whose grace has expired at `now`. They can no longer be resumed.
    pub(crate) fn take_overdue(&mut self, now: Tick) -> Vec<Lost> {
        let mut over = Vec::new();
        while let Some((_, id)) = self.expiries.first().copied().filter(|(until, _)| *until <= now) {
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

    /// A step with one of four presences and one of three tokens.
    #[derive(Debug, Clone)]
    enum SessionStep {
        Claim { who: u8, alias: u8, token: u8 },
        Lose { who: u8, until: u64 },
        EndHold { who: u8 },
        Forget { who: u8 },
        DropToken { who: u8 },
        Became { who: u8, other: u8 },
        Pass { now: u64 },
    }

    fn step() -> impl Strategy<Value = SessionStep> {
        prop_oneof![
            4 => (0..4_u8, 10..14_u8, 0..3_u8).prop_map(|(who, alias, token)| SessionStep::Claim { who, alias, token }),
            4 => (0..4_u8, 0..40_u64).prop_map(|(who, until)| SessionStep::Lose { who, until }),
            2 => (0..4_u8).prop_map(|who| SessionStep::EndHold { who }),
            1 => (0..4_u8).prop_map(|who| SessionStep::Forget { who }),
            1 => (0..4_u8).prop_map(|who| SessionStep::DropToken { who }),
            1 => (0..4_u8, 0..4_u8).prop_map(|(who, other)| SessionStep::Became { who, other }),
            3 => (0..40_u64).prop_map(|now| SessionStep::Pass { now }),
        ]
    }

    proptest! {
        /// A room claims a token for a presence that is new to it, or that the socket resumes.
        #[test]
        fn a_token_has_one_owner_and_holds_end_exactly_when_they_expire(
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let mut sessions = Sessions::default();
            let mut own: BTreeMap<u8, (Option<u8>, u8)> = BTreeMap::new();
            let mut lost: BTreeMap<u8, u64> = BTreeMap::new();
            let id = |n: u8| truth::presence(n).id;
            for step in steps {
                match step {
                    SessionStep::Claim { who, alias, token } => {
                        // As in rooms: the owner of a token is resumed, and an alias belongs to one presence.
                        let who = own.iter().find(|(_, (known, _))| *known == Some(token)).map_or(who, |(who, _)| *who);
                        if own.iter().any(|(other, (_, name))| *name == alias && *other != who) {
                            continue;
                        }
                        sessions.claim(id(who), id(alias), session(token), channel(alias));
                        lost.remove(&who);
                        own.insert(who, (Some(token), alias));
                    }
                    SessionStep::Lose { who, until } if own.contains_key(&who) => {
                        sessions.lose(truth::presence(who), Tick(until), Duration::ZERO);
                        lost.insert(who, until);
                    }
                    SessionStep::Lose { .. } => {}
                    SessionStep::EndHold { who } => {
                        prop_assert_eq!(sessions.end_hold(id(who)).is_some(), lost.remove(&who).is_some());
                    }
                    SessionStep::Forget { who } => {
                        sessions.forget(id(who));
                        own.remove(&who);
                        lost.remove(&who);
                    }
                    SessionStep::DropToken { who } => {
                        sessions.drop_token(id(who));
                        own.entry(who).and_modify(|(token, _)| *token = None);
                    }
                    SessionStep::Became { who, other } if who != other && !lost.contains_key(&who) => {
                        sessions.became(id(who), id(other));
                        if let Some(was) = own.remove(&who) {
                            lost.remove(&other);
                            own.insert(other, was);
                        }
                    }
                    SessionStep::Became { .. } => {}
                    SessionStep::Pass { now } => {
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
                prop_assert_eq!(sessions.next_expiry(), lost.values().min().map(|until| Tick(*until)));
                for token in 0..3 {
                    let owner = own.iter().find(|(_, (known, _))| *known == Some(token)).map(|(who, _)| id(*who));
                    prop_assert_eq!(sessions.owner(&session(token).hash), owner);
                }
                for who in 0..4 {
                    let known = own.get(&who);
                    prop_assert_eq!(sessions.session(id(who)), known.and_then(|(token, _)| token.map(session)));
                    prop_assert_eq!(sessions.lost(id(who)).is_some(), lost.contains_key(&who));
                    prop_assert_eq!(sessions.alias_of(id(who)), known.map_or(id(who), |(_, alias)| id(*alias)));
                }
                for alias in 10..14 {
                    let owner = own.iter().find(|(_, (_, name))| *name == alias).map(|(who, _)| id(*who));
                    prop_assert_eq!(sessions.canonical_id(id(alias)), owner.unwrap_or(id(alias)));
                }
                // Nothing is kept of presences that are gone.
                prop_assert_eq!((sessions.own.len(), sessions.aliases.len()), (own.len(), own.len()));
            }
        }
    }

    #[test]
    fn a_grace_is_extended_by_the_standstill_within_it() {
        let (mut sessions, secs) = (Sessions::default(), Duration::from_secs);
        // The first is lost after a standstill of 7 s. Then the node stands still for 4 s, and the second is lost after that.
        sessions.lose(truth::presence(1), Tick(10_000), secs(7));
        sessions.lose(truth::presence(2), Tick(11_000), secs(11));
        assert_eq!(sessions.extend_overdue(Tick(9_999), secs(11)), [], "no grace has expired yet");
        assert_eq!(sessions.extend_overdue(Tick(11_000), secs(11)), [(truth::presence(1), secs(3))]);
        assert_eq!(sessions.extend_overdue(Tick(11_000), secs(11)), [], "once only");
        assert_eq!(sessions.take_overdue(Tick(11_000)).len(), 1, "the second has expired");
        assert_eq!(
            (sessions.next_expiry(), sessions.extend_overdue(Tick(14_000), secs(11))),
            (Some(Tick(14_000)), vec![])
        );
        assert_eq!(sessions.take_overdue(Tick(14_000)).len(), 1);
    }

    #[test]
    fn a_load_from_before_a_claim_was_written_does_not_confirm_it() {
        let (mut sessions, id) = (Sessions::default(), truth::presence(1).id);
        sessions.claim(id, id, session(1), channel(1));
        assert!(!sessions.is_confirmed_by(id, 7), "the claim is being written");
        sessions.claimed(id, &channel(0), 3);
        assert!(!sessions.is_confirmed_by(id, 7), "that was the claim of a former socket");
        sessions.claimed(id, &channel(1), 7);
        assert!(!sessions.is_confirmed_by(id, 7), "that load may have begun before");
        assert!(sessions.is_confirmed_by(id, 8));
        sessions.claim_again(id, channel(1));
        assert!(!sessions.is_confirmed_by(id, 9));
    }
}

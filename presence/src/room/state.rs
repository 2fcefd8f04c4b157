//! What a room knows, and how it is told to others: the part of `RoomActor` that has no mailbox and no timer.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::{
    Config,
    clock::Tick,
    delivery::{
        message::{HubRef, Joiner, Reply, RoomFlush, Said, ToHub},
        touch::Touch,
        wire::{Held, Pages, View},
    },
    model::{
        Meta, Presence,
        delta::Change,
        notice::{News, Notices},
        replica::{LoadedRoom, Replica},
        roster::Roster,
        sessions::Sessions,
    },
    name::{ChannelName, Epoch, PresenceId, RoomName, UserId, Version},
};

use super::{
    leaving::Leaving,
    message::{Entrant, ToRoom},
    presence::Child,
};

/// A presence of this node.
pub(crate) struct Local {
    pub(crate) presence: Arc<Presence>,
    pub(crate) child: Child,
    pub(crate) touch: Touch,
    /// `None` if it has no socket, or as long as none has claimed it after the room lost its memory.
    pub(crate) hub: Option<HubRef>,
    /// The version of its last update by this node, which the roster may not have reached.
    pub(crate) updated: Option<(Epoch, Version)>,
}

pub(crate) struct HubMembers {
    pub(crate) hub: HubRef,
    pub(crate) members: usize,
}

/// A join whose commit is under way.
pub(crate) struct Joining {
    /// Who joins, as it asked to. [`Sessions`] has its token.
    pub(crate) entrant: Entrant,
    /// The channel that joins. The presence may turn out to be that of another, which was quicker.
    pub(crate) channel: ChannelName,
    pub(crate) replies: Vec<Reply<()>>,
    /// Where its commit led to, once that is known, and the number of the last reading that was begun by then. A roster that has
    /// come so far, and a later reading, show the presence if it is still there.
    pub(crate) committed: Option<((Epoch, Version), u64)>,
}

impl Joining {
    pub(crate) fn new(entrant: Entrant, replies: Vec<Reply<()>>) -> Self {
        Self { channel: entrant.presence.channel.clone(), entrant, replies, committed: None }
    }

    pub(crate) const fn presence(&self) -> &Arc<Presence> {
        &self.entrant.presence
    }
}

/// A join with a token of one who is joining: it takes over from that one when it has joined.
pub(crate) struct TokenWaiter {
    pub(crate) entrant: Entrant,
    pub(crate) reply: Reply<()>,
}

/// An update whose commit is under way.
pub(crate) struct Updating {
    pub(crate) channel: ChannelName,
    /// The commit has a higher batch number than this.
    pub(crate) after: u64,
    /// What it changes, as in [`Write::Update`](crate::store::Write::Update).
    pub(crate) user: Option<Option<UserId>>,
    pub(crate) meta: Option<Meta>,
    pub(crate) reply: Option<Reply<()>>,
}

/// One who waits for a look at the roster.
pub(crate) type Reader = Box<dyn FnOnce(&Roster) + Send>;

/// What the room knows. All of it can be had again from the store and the hubs.
pub(crate) struct State {
    pub(crate) replica: Replica,
    pub(crate) notices: Notices<Joiner>,
    pub(crate) locals: HashMap<PresenceId, Local>,
    pub(crate) hubs: HashMap<usize, HubMembers>,
    pub(crate) joining: HashMap<PresenceId, Joining>,
    pub(crate) leaving: HashMap<PresenceId, Leaving>,
    pub(crate) updating: HashMap<PresenceId, Vec<Updating>>,
    pub(crate) stale: HashSet<PresenceId>,
    pub(crate) readers: VecDeque<Reader>,
    /// What waits until it is known again who of this node is here.
    pub(crate) deferred: VecDeque<ToRoom>,
    /// Who can be resumed, and who is.
    pub(crate) sessions: Sessions,
    pub(crate) token_waiters: Vec<TokenWaiter>,
    /// The hubs whose members must be told everything anew.
    pub(crate) renew: HashSet<usize>,
    /// What was said since the first of those who wait for their first frame joined: they get it after that.
    meanwhile: Vec<Said>,
    /// What joiners wait for that have not read it.
    pub(crate) pages: Pages,
    /// When those were last cut off who read this room's first frames too slowly.
    pub(crate) made_room: Option<Tick>,
}

impl State {
    pub(crate) fn new(notify_interval: Duration, held: Arc<Held>) -> Self {
        Self {
            replica: Replica::default(),
            notices: Notices::new(notify_interval),
            locals: HashMap::new(),
            hubs: HashMap::new(),
            joining: HashMap::new(),
            leaving: HashMap::new(),
            updating: HashMap::new(),
            stale: HashSet::new(),
            readers: VecDeque::new(),
            deferred: VecDeque::new(),
            sessions: Sessions::default(),
            token_waiters: Vec::new(),
            renew: HashSet::new(),
            meanwhile: Vec::new(),
            pages: Pages::new(held),
            made_room: None,
        }
    }

    /// The room was read. Returns what changed, for who hears of it: of those who were here before this node knew the room, nobody
    /// does, however many they are.
    pub(crate) fn reload(&mut self, found: Option<LoadedRoom>) -> Vec<Change> {
        let Some(before) = self.replica.reload(found) else { return Vec::new() };
        if before.is_empty() && self.locals.is_empty() && self.notices.announced().is_none() {
            return Vec::new();
        }
        self.replica.roster().changes_since(&before)
    }

    /// A presence is here, and its socket is owed its first frame, and what is said until then.
    pub(crate) fn joined(
        &mut self,
        now: Tick,
        hub: HubRef,
        presence: Arc<Presence>,
        touch: Touch,
        replies: Vec<Reply<()>>,
    ) {
        self.enter_hub(&hub);
        let before = self.meanwhile.len();
        self.notices.joined(now, Joiner { hub, presence, touch, replies, before });
    }

    /// An update was handed in.
    pub(crate) fn updates(&mut self, id: PresenceId, update: Updating) {
        let updating = self.updating.entry(id).or_default();
        match updating.last_mut() {
            // Nobody waits for either, and they go into one write.
            Some(last)
                if (last.after, &last.channel) == (update.after, &update.channel)
                    && last.reply.is_none()
                    && update.reply.is_none() =>
            {
                last.user = update.user.or_else(|| last.user.take());
                last.meta = update.meta.or_else(|| last.meta.take());
            }
            _ => updating.push(update),
        }
    }

    /// Whether an update that says whose presence it is to be is under way.
    pub(crate) fn user_changes(&self, id: PresenceId) -> bool {
        self.updating.get(&id).into_iter().flatten().any(|one| one.user.is_some())
    }

    /// Whose presence it is to be: an update that gives it to another may be under way.
    pub(crate) fn user_of<'a>(&'a self, presence: &'a Presence) -> Option<&'a UserId> {
        let updating = self.updating.get(&presence.id).into_iter().flatten();
        updating.filter_map(|one| one.user.as_ref()).next_back().unwrap_or(&presence.user).as_ref()
    }

    /// Who is here or joins under this id, and where its socket is.
    pub(crate) fn socket_of(&self, id: PresenceId) -> Option<(Arc<Presence>, Option<HubRef>)> {
        let here = self.locals.get(&id).map(|local| (local.presence.clone(), local.hub.clone()));
        here.or_else(|| {
            let Entrant { presence, hub, .. } = &self.joining.get(&id)?.entrant;
            Some((presence.clone(), hub.clone()))
        })
    }

    /// Something is said to those who are members. Those who are announced as such and wait for their first frame are too.
    pub(crate) fn said(&mut self, said: impl FnOnce() -> Said) {
        if self.notices.has_joiners() {
            self.meanwhile.push(said());
        }
    }

    /// How much is kept for those who wait for their first frame.
    pub(crate) const fn kept(&self) -> usize {
        self.meanwhile.len()
    }

    /// Whether nothing is under way and nobody of this node is in the room.
    pub(crate) fn is_idle(&self) -> bool {
        self.locals.is_empty()
            && self.joining.is_empty()
            && self.leaving.is_empty()
            && self.updating.is_empty()
            && self.readers.is_empty()
            && self.deferred.is_empty()
            && self.token_waiters.is_empty()
            && self.due().is_none()
    }

    /// Whether a change of ours is under way.
    pub(crate) fn is_writing(&self) -> bool {
        !(self.joining.is_empty() && self.leaving.is_empty() && self.updating.is_empty())
    }

    /// When members must be told something. As long as there is no room in the database, there is nothing to tell: it waits
    /// for the room's next life.
    pub(crate) fn due(&self) -> Option<Tick> {
        self.notices.due().filter(|_| self.replica.position().is_some())
    }

    /// Counts a member on a hub.
    pub(crate) fn enter_hub(&mut self, hub: &HubRef) {
        self.hubs.entry(hub.id).or_insert_with(|| HubMembers { hub: hub.clone(), members: 0 }).members += 1;
    }

    /// Counts it off again.
    pub(crate) fn leave_hub(&mut self, hub: &HubRef) {
        if let Some(here) = self.hubs.get_mut(&hub.id) {
            here.members -= 1;
            if here.members == 0 {
                self.hubs.remove(&hub.id);
            }
        }
    }

    /// Counts a presence that is about to leave off its hub. Returns whether it was on one.
    pub(crate) fn take_off_hub(&mut self, id: PresenceId) -> bool {
        let hub = self.locals.get_mut(&id).and_then(|local| local.hub.take());
        hub.inspect(|hub| self.leave_hub(hub)).is_some()
    }

    /// Tells the members what is due.
    pub(crate) fn flush(&mut self, now: Tick, name: &RoomName, config: &Config) {
        let Some(position) = self.replica.position() else { return };
        if self.joining.is_empty() {
            // Else the room would keep for ever what its largest storm of joins took.
            self.joining = HashMap::new();
        }
        let flush = self.notices.flush(now, position);
        if self.hubs.is_empty() {
            // Nobody of this node is in the room: what there is to tell need not be written.
            (self.meanwhile, self.renew) = (Vec::new(), HashSet::new());
            return;
        }
        let view = View {
            notify: config.notify(),
            max_frame: config.max_frame_sent(),
            room: name,
            position: (flush.epoch, flush.version),
            roster: self.replica.roster(),
        };
        let (news, new_life) = match &flush.news {
            News::None => (None, false),
            News::Delta(delta) => (view.news(flush.from, delta), false),
            News::NewEpoch => (None, true),
        };
        let meanwhile: Arc<[Said]> = std::mem::take(&mut self.meanwhile).into();
        let mut joiners: HashMap<usize, Vec<Joiner>> = HashMap::new();
        for joiner in flush.joiners {
            joiners.entry(joiner.hub.id).or_default().push(joiner);
        }
        let renew = std::mem::take(&mut self.renew);
        let first = (!joiners.is_empty() || new_life || !renew.is_empty())
            .then(|| view.first(news.as_ref(), &mut self.pages))
            .flatten();
        for (id, HubMembers { hub, .. }) in &self.hubs {
            let joiners = joiners.remove(id).unwrap_or_default();
            let renew = new_life || renew.contains(id);
            if news.is_none() && joiners.is_empty() && !renew {
                continue;
            }
            hub.addr.do_send(ToHub::Flush(Box::new(RoomFlush {
                room: name.clone(),
                announced: (flush.epoch, flush.version),
                news: news.clone(),
                first: first.clone(),
                renew,
                joiners,
                meanwhile: meanwhile.clone(),
            })));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn update(after: u64, user: Option<&str>, meta: Option<&str>) -> Updating {
        Updating {
            channel: ChannelName::new("c").unwrap(),
            after,
            user: user.map(|user| Some(UserId::new(user).unwrap())),
            meta: meta.map(|meta| Meta::from_json(meta).unwrap()),
            reply: None,
        }
    }

    #[test]
    fn updates_that_nobody_waits_for_and_that_wait_together_are_one() {
        // Relaxed updates of one presence piled up as long as the database was away.
        let (mut state, id) = (State::new(Duration::ZERO, Arc::default()), PresenceId::random());
        state.updates(id, update(1, Some("ann"), None));
        for n in 0..1000 {
            state.updates(id, update(1, None, Some(&format!(r#"{{"n":{n}}}"#))));
        }
        let [one] = &state.updating[&id][..] else { panic!("{} updates", state.updating[&id].len()) };
        assert_eq!(one.user, Some(Some(UserId::new("ann").unwrap())));
        assert_eq!(one.meta, Some(Meta::from_json(r#"{"n":999}"#).unwrap()));
    }

    #[test]
    fn an_update_that_somebody_waits_for_or_of_a_later_batch_stands_alone() {
        let (mut state, id) = (State::new(Duration::ZERO, Arc::default()), PresenceId::random());
        state.updates(id, update(1, None, Some("{}")));
        state.updates(id, update(2, None, Some("{}")));
        let (reply, _answer) = oneshot::channel();
        state.updates(id, Updating { reply: Some(reply), ..update(2, None, Some("{}")) });
        state.updates(id, update(2, None, Some("{}")));
        assert_eq!(state.updating[&id].len(), 4);
    }
}

//! What a room knows, and how its members are notified of it: the part of `RoomActor` that has no mailbox and no timer.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::{
    Config,
    clock::Tick,
    delivery::{
        Broadcast, HubRef, Joiner, Reply, RoomFlush, ToHub, Touch,
        wire::{Held, Pages, View},
    },
    model::{
        Meta, Presence,
        delta::RosterChange,
        notice::{NoticeContent, Notices},
        replica::{LoadedRoom, Replica},
        sessions::Sessions,
    },
    name::{ChannelName, Epoch, PresenceId, RoomName, UserId, Version},
};

use super::{
    following::Follower,
    leaving::Leaving,
    message::{Entrant, ToRoom},
    presence::Child,
    reader::RosterReader,
};

/// A presence of this node.
pub(crate) struct Local {
    pub(crate) presence: Arc<Presence>,
    pub(crate) child: Child,
    pub(crate) touch: Touch,
    /// `None` if it has no socket, or if no socket has claimed it since the room failed.
    pub(crate) hub: Option<HubRef>,
    /// The version of its last update by this node, which the roster may not have reached yet.
    pub(crate) updated: Option<(Epoch, Version)>,
}

pub(crate) struct MembersOfHub {
    pub(crate) hub: HubRef,
    pub(crate) members: usize,
}

/// A join whose commit is pending.
pub(crate) struct Joining {
    /// The join as it was requested, without its token, which is in [`Sessions`].
    pub(crate) entrant: Entrant,
    /// The channel that joins. The presence may turn out to belong to another channel, which was quicker.
    pub(crate) channel: ChannelName,
    pub(crate) replies: Vec<Reply<()>>,
    /// Set by its commit: the position to which that led, and the number of the last reading that had begun by then. A roster that has
    /// reached this position contains the presence unless it was removed since, and so does a later reading.
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

/// A join with the token of a presence that is still joining. It resumes that presence when it has joined.
pub(crate) struct TokenWaiter {
    pub(crate) entrant: Entrant,
    pub(crate) reply: Reply<()>,
}

/// An update whose commit is pending.
pub(crate) struct Updating {
    pub(crate) channel: ChannelName,
    /// The commit has a higher batch number than this.
    pub(crate) after: u64,
    /// What it changes, as in [`Write::Update`](crate::store::Write::Update).
    pub(crate) user: Option<Option<UserId>>,
    pub(crate) meta: Option<Meta>,
    pub(crate) reply: Option<Reply<()>>,
}

/// What the room knows. After a failure, all of it can be restored from the store and the hubs.
pub(crate) struct RoomState {
    pub(crate) replica: Replica,
    pub(crate) notices: Notices<Joiner>,
    pub(crate) locals: HashMap<PresenceId, Local>,
    pub(crate) hubs: HashMap<usize, MembersOfHub>,
    pub(crate) joining: HashMap<PresenceId, Joining>,
    /// The joins that may have [`committed`](Joining::committed), so that a commit need not look at all others.
    pub(crate) committed: HashSet<PresenceId>,
    pub(crate) leaving: HashMap<PresenceId, Leaving>,
    pub(crate) updating: HashMap<PresenceId, Vec<Updating>>,
    pub(crate) stale: HashSet<PresenceId>,
    pub(crate) readers: VecDeque<Box<dyn RosterReader>>,
    pub(crate) followers: Vec<Follower>,
    /// Messages about presences of this node that arrived after the room failed. They are handled when its hubs have reported.
    pub(crate) deferred: VecDeque<ToRoom>,
    /// Which presences can be resumed, with which tokens.
    pub(crate) sessions: Sessions,
    pub(crate) token_waiters: Vec<TokenWaiter>,
    /// The hubs whose members must be sent the whole list again.
    pub(crate) outdated_hubs: HashSet<usize>,
    /// What was sent to the room while members wait for their first frame. They receive it after that frame.
    broadcasts: Vec<Broadcast>,
    /// The first frames that joiners have not read yet.
    pub(crate) pages: Pages,
    /// When clients were last cut off because they read this room's first frames too slowly.
    pub(crate) last_cut_off: Option<Tick>,
}

impl RoomState {
    pub(crate) fn new(notify_interval: Duration, held: Arc<Held>) -> Self {
        Self {
            replica: Replica::default(),
            notices: Notices::new(notify_interval),
            locals: HashMap::new(),
            hubs: HashMap::new(),
            joining: HashMap::new(),
            committed: HashSet::new(),
            leaving: HashMap::new(),
            updating: HashMap::new(),
            stale: HashSet::new(),
            readers: VecDeque::new(),
            followers: Vec::new(),
            deferred: VecDeque::new(),
            sessions: Sessions::default(),
            token_waiters: Vec::new(),
            outdated_hubs: HashSet::new(),
            broadcasts: Vec::new(),
            pages: Pages::new(held),
            last_cut_off: None,
        }
    }

    /// The room was read. Returns the changes of which members have to be notified. There are none if no member has received anything of
    /// this room yet, even if many are in it.
    pub(crate) fn reload(&mut self, found: Option<LoadedRoom>) -> Vec<RosterChange> {
        let Some(before) = self.replica.reload(found) else { return Vec::new() };
        if before.is_empty() && self.locals.is_empty() && self.notices.announced().is_none() {
            return Vec::new();
        }
        self.replica.roster().changes_since(&before)
    }

    /// A presence has joined. Its socket receives its first frame, and after it what is sent to the room before that frame.
    pub(crate) fn joined(
        &mut self,
        now: Tick,
        hub: HubRef,
        presence: Arc<Presence>,
        touch: Touch,
        replies: Vec<Reply<()>>,
    ) {
        self.enter_hub(&hub);
        let skipped = self.broadcasts.len();
        self.notices.joined(now, Joiner { hub, presence, touch, replies, skipped });
    }

    /// An update was handed in.
    pub(crate) fn add_update(&mut self, id: PresenceId, update: Updating) {
        let updating = self.updating.entry(id).or_default();
        match updating.last_mut() {
            // No caller waits for either of them, and the writer merges them, so one entry is enough.
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

    /// Whether a pending update changes the user of the presence.
    pub(crate) fn user_changes(&self, id: PresenceId) -> bool {
        self.updating.get(&id).into_iter().flatten().any(|one| one.user.is_some())
    }

    /// The user that the presence has after its pending updates.
    pub(crate) fn user_of<'a>(&'a self, presence: &'a Presence) -> Option<&'a UserId> {
        let updating = self.updating.get(&presence.id).into_iter().flatten();
        updating.filter_map(|one| one.user.as_ref()).next_back().unwrap_or(&presence.user).as_ref()
    }

    /// The presence with this id, if its socket is that of `channel`.
    pub(crate) fn local_of(&mut self, id: PresenceId, channel: &ChannelName) -> Option<&mut Local> {
        self.locals.get_mut(&id).filter(|local| local.presence.channel == *channel)
    }

    /// The presence that is here or joins under this id, and the hub of its socket.
    pub(crate) fn socket_of(&self, id: PresenceId) -> Option<(Arc<Presence>, Option<HubRef>)> {
        let here = self.locals.get(&id).map(|local| (local.presence.clone(), local.hub.clone()));
        here.or_else(|| {
            let Entrant { presence, hub, .. } = &self.joining.get(&id)?.entrant;
            Some((presence.clone(), hub.clone()))
        })
    }

    /// Keeps a broadcast for members that wait for their first frame, since the others see them as members already.
    pub(crate) fn keep_for_joiners(&mut self, broadcast: impl FnOnce() -> Broadcast) {
        if self.notices.has_joiners() {
            self.broadcasts.push(broadcast());
        }
    }

    /// How many messages are kept for members that wait for their first frame.
    pub(crate) const fn kept_for_joiners(&self) -> usize {
        self.broadcasts.len()
    }

    /// Whether nothing is pending and no presence of this node is in the room.
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

    /// Adds a reader, and removes those whose callers have given up. All callers wait equally long, so these are the first ones.
    pub(crate) fn add_reader(&mut self, reader: Box<dyn RosterReader>) {
        while self.readers.pop_front_if(|first| !first.is_waiting()).is_some() {}
        self.readers.push_back(reader);
    }

    /// Whether a part of the application follows the room.
    pub(crate) fn is_followed(&self) -> bool {
        self.followers.iter().any(Follower::is_connected)
    }

    /// Whether a change by this node is pending.
    pub(crate) fn is_writing(&self) -> bool {
        !(self.joining.is_empty() && self.leaving.is_empty() && self.updating.is_empty())
    }

    /// When notices must be sent. While the database has no such room, there is no version that a notice could have: they wait until
    /// the room exists again.
    pub(crate) fn due(&self) -> Option<Tick> {
        self.notices.due().filter(|_| self.replica.position().is_some())
    }

    /// Counts one member more on a hub.
    pub(crate) fn enter_hub(&mut self, hub: &HubRef) {
        self.hubs.entry(hub.id).or_insert_with(|| MembersOfHub { hub: hub.clone(), members: 0 }).members += 1;
    }

    /// Counts one member less on a hub.
    pub(crate) fn leave_hub(&mut self, hub: &HubRef) {
        if let Some(here) = self.hubs.get_mut(&hub.id) {
            here.members -= 1;
            if here.members == 0 {
                self.hubs.remove(&hub.id);
            }
        }
    }

    /// Removes a presence that is about to leave from its hub, unless another socket has resumed it. Returns whether it was on one.
    pub(crate) fn take_off_hub(&mut self, Presence { id, channel, .. }: &Presence) -> bool {
        let hub = self.local_of(*id, channel).and_then(|local| local.hub.take());
        hub.inspect(|hub| self.leave_hub(hub)).is_some()
    }

    /// Sends the notices that are due.
    pub(crate) fn flush(&mut self, now: Tick, name: &RoomName, config: &Config) {
        let Some(position) = self.replica.position() else { return };
        if self.joining.is_empty() {
            // An empty map keeps its capacity, so the room would keep the memory of its largest storm of joins for ever.
            self.joining = HashMap::new();
        }
        let members = self.hubs.values().map(|here| here.members).sum();
        let flush = self.notices.flush(now, position, members, self.replica.roster().len());
        if self.hubs.is_empty() {
            // No socket of this node is in the room, so nothing has to be encoded.
            (self.broadcasts, self.outdated_hubs) = (Vec::new(), HashSet::new());
            return;
        }
        let view = View {
            notify: config.notify(),
            max_frame: config.max_frame_sent(),
            room: name,
            position: (flush.epoch, flush.version),
            roster: self.replica.roster(),
        };
        let (notice, is_new_epoch) = match &flush.content {
            NoticeContent::None => (None, false),
            NoticeContent::Delta(delta) => (view.notice(flush.from, delta), false),
            NoticeContent::NewEpoch => (None, true),
        };
        let broadcasts: Arc<[Broadcast]> = std::mem::take(&mut self.broadcasts).into();
        let mut joiners: HashMap<usize, Vec<Joiner>> = HashMap::new();
        for joiner in flush.joiners {
            joiners.entry(joiner.hub.id).or_default().push(joiner);
        }
        let outdated_hubs = std::mem::take(&mut self.outdated_hubs);
        let first = (!joiners.is_empty() || is_new_epoch || !outdated_hubs.is_empty())
            .then(|| view.first(notice.as_ref(), &mut self.pages))
            .flatten();
        for (id, MembersOfHub { hub, .. }) in &self.hubs {
            let joiners = joiners.remove(id).unwrap_or_default();
            let resend = is_new_epoch || outdated_hubs.contains(id);
            if notice.is_none() && joiners.is_empty() && !resend {
                continue;
            }
            hub.addr.do_send(ToHub::Flush(Box::new(RoomFlush {
                room: name.clone(),
                announced: (flush.epoch, flush.version),
                notice: notice.clone(),
                first: first.clone(),
                resend,
                joiners,
                broadcasts: broadcasts.clone(),
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
    fn updates_without_replies_that_go_into_one_write_are_merged() {
        // Otherwise relaxed updates of one presence pile up as long as the database is away.
        let (mut state, id) = (RoomState::new(Duration::ZERO, Arc::default()), PresenceId::random());
        state.add_update(id, update(1, Some("ann"), None));
        for n in 0..1000 {
            state.add_update(id, update(1, None, Some(&format!(r#"{{"n":{n}}}"#))));
        }
        let [one] = &state.updating[&id][..] else { panic!("{} updates", state.updating[&id].len()) };
        assert_eq!(one.user, Some(Some(UserId::new("ann").unwrap())));
        assert_eq!(one.meta, Some(Meta::from_json(r#"{"n":999}"#).unwrap()));
    }

    #[test]
    fn an_update_with_a_reply_or_of_a_later_batch_is_not_merged() {
        let (mut state, id) = (RoomState::new(Duration::ZERO, Arc::default()), PresenceId::random());
        state.add_update(id, update(1, None, Some("{}")));
        state.add_update(id, update(2, None, Some("{}")));
        let (reply, _answer) = oneshot::channel();
        state.add_update(id, Updating { reply: Some(reply), ..update(2, None, Some("{}")) });
        state.add_update(id, update(2, None, Some("{}")));
        assert_eq!(state.updating[&id].len(), 4);
    }
}

//! Merges two changes of one presence that are queued together.

use std::sync::Arc;

use crate::{name::ChannelName, store::Write};

/// A queued change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) write: Write,
    pub(super) tried: Tried,
}

/// Whether a write may have reached the database already. If so, a leave does not cancel the join before it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tried {
    No,
    Yes,
}

/// The result of a merge.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Merged {
    /// One change with the effect of both.
    One(Change),
    /// The two changes cancel out.
    Nothing,
    /// No single change has the effect of both. The later one waits until the earlier one is written.
    Both(Change, Change),
}

/// Merges a change into an earlier one of the same presence. A join with a limit is merged like a join without one, and the
/// result keeps the limit.
pub(super) fn merge(earlier: Change, later: Change) -> Merged {
    let limits = (limit(&earlier.write), limit(&later.write));
    match merge_unlimited(without_limit(earlier), without_limit(later)) {
        // If both were written, the higher limit would decide.
        Merged::One(change) => Merged::One(with_limit(change, limits.0.max(limits.1))),
        Merged::Nothing => Merged::Nothing,
        Merged::Both(earlier, later) => Merged::Both(with_limit(earlier, limits.0), with_limit(later, limits.1)),
    }
}

/// The room size up to which a write joins. `None` if it is not a join.
const fn limit(write: &Write) -> Option<usize> {
    match write {
        Write::JoinWithin { limit, .. } => Some(*limit),
        Write::Join(_) | Write::Restore { .. } | Write::Resume { .. } => Some(usize::MAX),
        Write::Leave { .. } | Write::Update { .. } | Write::Hold { .. } => None,
    }
}

fn without_limit(change: Change) -> Change {
    let write = match change.write {
        Write::JoinWithin { presence, session: Some(session), .. } => Write::Resume { presence, session },
        Write::JoinWithin { presence, session: None, .. } => Write::Join(presence),
        write => write,
    };
    Change { write, ..change }
}

fn with_limit(change: Change, limit: Option<usize>) -> Change {
    let Some(limit) = limit.filter(|limit| *limit < usize::MAX) else { return change };
    let write = match change.write {
        Write::Join(presence) => Write::JoinWithin { presence, session: None, limit },
        Write::Resume { presence, session } => Write::JoinWithin { presence, session: Some(session), limit },
        write => write,
    };
    Change { write, ..change }
}

fn merge_unlimited(earlier: Change, later: Change) -> Merged {
    let tried = if later.tried == Tried::Yes { Tried::Yes } else { earlier.tried };
    let merged = |write| Merged::One(Change { write, tried });
    let certain = |write| Merged::One(Change { write, tried: Tried::Yes });
    // A socket that resumes a presence has another channel than the socket before it. Changes of the one must not be made in
    // the name of the other.
    let same = channel(&earlier.write) == channel(&later.write);
    match (earlier.write, later.write) {
        // The newer socket takes the presence over, whether it is held or another socket has it.
        (Write::Hold { .. } | Write::Resume { .. }, resume @ Write::Resume { .. }) => certain(resume),
        (earlier_write, write) if !same => {
            Merged::Both(Change { write: earlier_write, ..earlier }, Change { write, ..later })
        }
        // The database does not know of the join. A presence that it would have resumed stays as it was.
        (Write::Join(_) | Write::Resume { .. }, Write::Leave { .. }) if tried == Tried::No => Merged::Nothing,
        (Write::Join(presence), Write::Update { user, meta, .. }) => {
            merged(Write::Join(Arc::new(presence.changed(user, meta))))
        }
        (Write::Update { user, meta, .. }, Write::Update { id, channel, user: later_user, meta: later_meta }) => {
            merged(Write::Update { id, channel, user: later_user.or(user), meta: later_meta.or(meta) })
        }
        // A repeated join. The queued one may have been updated since.
        (Write::Join(presence), Write::Join(_)) => merged(Write::Join(presence)),
        (restore @ Write::Restore { .. }, Write::Restore { .. }) => merged(restore),
        // A presence that was updated or left is in the database, so a leave after this must be written.
        (Write::Update { user, meta, .. }, Write::Join(presence)) => {
            certain(Write::Join(Arc::new(presence.changed(user, meta))))
        }
        (Write::Leave { .. }, write @ (Write::Join(_) | Write::Restore { .. })) => certain(write),
        // A presence that left can be neither updated nor held.
        (leave @ Write::Leave { .. }, Write::Update { .. } | Write::Hold { .. }) => merged(leave),
        (
            Write::Join(_) | Write::Restore { .. } | Write::Update { .. } | Write::Hold { .. } | Write::Leave { .. },
            leave @ Write::Leave { .. },
        )
        | (Write::Hold { .. }, leave @ Write::Hold { .. }) => merged(leave),
        // The effect of a resume is known only when it is written.
        (earlier_write, write) => Merged::Both(Change { write: earlier_write, ..earlier }, Change { write, ..later }),
    }
}

/// The channel in whose name a write is made.
fn channel(write: &Write) -> &ChannelName {
    match write {
        Write::Join(presence)
        | Write::Restore { presence, .. }
        | Write::Resume { presence, .. }
        | Write::JoinWithin { presence, .. } => &presence.channel,
        Write::Leave { channel, .. } | Write::Update { channel, .. } | Write::Hold { channel, .. } => channel,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        model::{Meta, Presence},
        name::{ChannelName, NodeId, PresenceId},
        store::{Session, SessionHash},
    };

    fn presence() -> Arc<Presence> {
        let channel = ChannelName::new("socket").unwrap();
        Arc::new(Presence::new(PresenceId::random(), channel, None, NodeId::random()))
    }

    fn fresh(write: Write) -> Change {
        Change { write, tried: Tried::No }
    }

    fn tried(write: Write) -> Change {
        Change { write, tried: Tried::Yes }
    }

    /// The result of a merge that must be one change.
    fn one(earlier: Change, later: Change) -> Change {
        match merge(earlier, later) {
            Merged::One(change) => change,
            other => panic!("not one change: {other:?}"),
        }
    }

    fn leave(presence: &Presence) -> Write {
        Write::Leave { id: presence.id, channel: presence.channel.clone() }
    }

    fn update(presence: &Presence, meta: &str) -> Write {
        let meta = Some(Meta::from_json(meta).unwrap());
        Write::Update { id: presence.id, channel: presence.channel.clone(), user: None, meta }
    }

    #[test]
    fn a_join_and_its_leave_cancel_out_unless_the_join_may_be_in_the_database() {
        let ann = presence();
        assert_eq!(merge(fresh(Write::Join(ann.clone())), fresh(leave(&ann))), Merged::Nothing);
        let left = Change { write: leave(&ann), tried: Tried::Yes };
        assert_eq!(one(tried(Write::Join(ann.clone())), fresh(leave(&ann))), left);
    }

    #[test]
    fn a_leave_after_a_join_after_a_leave_is_written() {
        let ann = presence();
        let joined = one(fresh(leave(&ann)), fresh(Write::Join(ann.clone())));
        assert_eq!(one(joined, fresh(leave(&ann))).write, leave(&ann));
    }

    #[test]
    fn of_two_updates_the_later_value_of_each_field_is_written() {
        let ann = presence();
        let anonymous = Write::Update { id: ann.id, channel: ann.channel.clone(), user: Some(None), meta: None };
        let first = one(fresh(update(&ann, r#"{"n":1}"#)), fresh(anonymous));
        let both = one(first, fresh(update(&ann, r#"{"n":2}"#))).write;
        let meta = Some(Meta::from_json(r#"{"n":2}"#).unwrap());
        assert_eq!(both, Write::Update { id: ann.id, channel: ann.channel.clone(), user: Some(None), meta });
    }

    #[test]
    fn an_update_is_merged_into_a_join_before_it_and_dropped_after_a_leave() {
        let ann = presence();
        let changed = update(&ann, r#"{"n":1}"#);
        let joined = one(fresh(Write::Join(ann.clone())), fresh(changed.clone())).write;
        let meta = Meta::from_json(r#"{"n":1}"#).unwrap();
        assert_eq!(joined, Write::Join(Arc::new(ann.changed(None, Some(meta)))));
        assert_eq!(one(fresh(leave(&ann)), fresh(changed)).write, leave(&ann));
    }

    fn resume(presence: &Presence, channel: &str) -> (Arc<Presence>, Write) {
        let session = Session { hash: SessionHash::from_bytes([1; 32]), grace: Duration::from_secs(1) };
        let presence = Arc::new(Presence { channel: ChannelName::new(channel).unwrap(), ..presence.clone() });
        (presence.clone(), Write::Resume { presence, session })
    }

    fn hold(presence: &Presence) -> Write {
        Write::Hold { id: presence.id, channel: presence.channel.clone(), grace: Duration::from_secs(1) }
    }

    #[test]
    fn a_presence_that_is_resumed_at_once_is_not_held_first() {
        let ann = presence();
        let (_, back) = resume(&ann, "second");
        assert_eq!(one(fresh(hold(&ann)), tried(back.clone())), tried(back));
    }

    #[test]
    fn a_join_keeps_its_limit_whatever_it_is_merged_with() {
        let ann = presence();
        let limited = |limit| Write::JoinWithin { presence: ann.clone(), session: None, limit };
        let meta = Meta::from_json(r#"{"n":1}"#).unwrap();
        let changed = Arc::new(ann.changed(None, Some(meta)));
        let joined = one(fresh(limited(2)), fresh(update(&ann, r#"{"n":1}"#))).write;
        assert_eq!(joined, Write::JoinWithin { presence: changed, session: None, limit: 2 });
        assert_eq!(one(fresh(leave(&ann)), fresh(limited(2))), tried(limited(2)));
        assert_eq!(one(fresh(limited(2)), fresh(limited(3))).write, limited(3), "the later join would have succeeded");
        assert_eq!(one(tried(limited(2)), tried(Write::Join(ann.clone()))).write, Write::Join(ann.clone()));
        assert_eq!(merge(fresh(limited(2)), fresh(leave(&ann))), Merged::Nothing);
        assert_eq!(one(tried(limited(2)), fresh(leave(&ann))).write, leave(&ann));
        let (now, Write::Resume { presence, session }) = resume(&ann, "second") else { panic!("it resumes") };
        let back = tried(Write::JoinWithin { presence, session: Some(session), limit: 2 });
        let then = fresh(update(&now, "{}"));
        assert_eq!(merge(back.clone(), then.clone()), Merged::Both(back, then));
    }

    #[test]
    fn late_changes_of_the_former_socket_are_not_merged_with_those_of_the_newer() {
        let ann = presence();
        let (now, back) = resume(&ann, "second");
        for late in [leave(&ann), hold(&ann), update(&ann, "{}")] {
            let (back, late) = (tried(back.clone()), fresh(late));
            assert_eq!(merge(back.clone(), late.clone()), Merged::Both(back, late));
        }
        let (theirs, ours) = (fresh(update(&ann, r#"{"n":1}"#)), fresh(update(&now, r#"{"n":2}"#)));
        assert_eq!(merge(theirs.clone(), ours.clone()), Merged::Both(theirs, ours));
    }

    #[test]
    fn changes_after_a_resume_wait_until_the_resume_is_written() {
        let (now, back) = resume(&presence(), "second");
        for then in [leave(&now), hold(&now), update(&now, "{}")] {
            let (back, then) = (tried(back.clone()), fresh(then));
            assert_eq!(merge(back.clone(), then.clone()), Merged::Both(back, then));
        }
        assert_eq!(merge(fresh(back.clone()), fresh(leave(&now))), Merged::Nothing);
        let (_, third) = resume(&now, "third");
        assert_eq!(one(tried(back), tried(third.clone())), tried(third));
    }

    #[test]
    fn of_a_hold_and_a_leave_only_the_leave_is_written() {
        let ann = presence();
        assert_eq!(one(fresh(hold(&ann)), fresh(leave(&ann))).write, leave(&ann));
        assert_eq!(one(fresh(leave(&ann)), fresh(hold(&ann))).write, leave(&ann));
    }
}

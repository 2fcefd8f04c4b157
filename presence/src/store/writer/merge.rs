//! What two changes of one presence come to, if they wait together.

use std::sync::Arc;

use crate::store::Write;

/// A change, as it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) write: Write,
    pub(super) tried: Tried,
}

/// Whether a write may have reached the database already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    No,
    Yes,
}

/// One change that does what both do, one after the other. `None`: they cancel out.
pub(super) fn merge(earlier: Change, later: Change) -> Option<Change> {
    let tried = if later.tried == Tried::Yes { Tried::Yes } else { earlier.tried };
    let merged = |write| Some(Change { write, tried });
    match (earlier.write, later.write) {
        // It never came, so it need not go.
        (Write::Join(_), Write::Leave { .. }) if tried == Tried::No => None,
        (Write::Join(presence), Write::Update { user, meta, .. }) => {
            merged(Write::Join(Arc::new(presence.changed(user, meta))))
        }
        (Write::Update { user, meta, .. }, Write::Update { id, channel, user: later_user, meta: later_meta }) => {
            merged(Write::Update { id, channel, user: later_user.or(user), meta: later_meta.or(meta) })
        }
        // The same again; but the one that waits may have been updated since.
        (Write::Join(presence), Write::Join(again)) if presence.channel == again.channel => {
            merged(Write::Join(presence))
        }
        // What left, or was updated, is in the database: a leave to come must reach it.
        (Write::Update { channel, user, meta, .. }, Write::Join(presence)) if channel == presence.channel => {
            Some(Change { write: Write::Join(Arc::new(presence.changed(user, meta))), tried: Tried::Yes })
        }
        (Write::Leave { .. }, write @ Write::Join(_)) => Some(Change { write, tried: Tried::Yes }),
        // Who left cannot be changed.
        (leave @ Write::Leave { .. }, Write::Update { .. }) => merged(leave),
        (_, write) => merged(write),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Meta, Presence},
        name::{ChannelName, NodeId, PresenceId},
    };

    fn presence() -> Arc<Presence> {
        let channel = ChannelName::new("socket").unwrap();
        Arc::new(Presence::new(PresenceId::random(), channel, None, NodeId::random()))
    }

    fn fresh(write: Write) -> Change {
        Change { write, tried: Tried::No }
    }

    fn leave(presence: &Presence) -> Write {
        Write::Leave { id: presence.id, channel: presence.channel.clone() }
    }

    fn update(presence: &Presence, meta: &str) -> Write {
        let meta = Some(Meta::from_json(meta).unwrap());
        Write::Update { id: presence.id, channel: presence.channel.clone(), user: None, meta }
    }

    #[test]
    fn a_join_and_its_leave_cancel_out_unless_the_database_may_know_of_the_join() {
        let ann = presence();
        assert_eq!(merge(fresh(Write::Join(ann.clone())), fresh(leave(&ann))), None);
        let tried = Change { write: Write::Join(ann.clone()), tried: Tried::Yes };
        assert_eq!(merge(tried, fresh(leave(&ann))), Some(Change { write: leave(&ann), tried: Tried::Yes }));
    }

    #[test]
    fn a_join_after_a_leave_is_not_taken_back_without_the_database() {
        let ann = presence();
        let joined = merge(fresh(leave(&ann)), fresh(Write::Join(ann.clone()))).unwrap();
        assert_eq!(merge(joined, fresh(leave(&ann))).unwrap().write, leave(&ann));
    }

    #[test]
    fn the_later_of_two_updates_holds_and_what_only_the_earlier_says_stays() {
        let ann = presence();
        let anonymous = Write::Update { id: ann.id, channel: ann.channel.clone(), user: Some(None), meta: None };
        let first = merge(fresh(update(&ann, r#"{"n":1}"#)), fresh(anonymous)).unwrap();
        let both = merge(first, fresh(update(&ann, r#"{"n":2}"#))).unwrap().write;
        let meta = Some(Meta::from_json(r#"{"n":2}"#).unwrap());
        assert_eq!(both, Write::Update { id: ann.id, channel: ann.channel.clone(), user: Some(None), meta });
    }

    #[test]
    fn an_update_goes_with_the_join_before_it_and_not_with_the_leave() {
        let ann = presence();
        let changed = update(&ann, r#"{"n":1}"#);
        let joined = merge(fresh(Write::Join(ann.clone())), fresh(changed.clone())).unwrap().write;
        let meta = Meta::from_json(r#"{"n":1}"#).unwrap();
        assert_eq!(joined, Write::Join(Arc::new(ann.changed(None, Some(meta)))));
        assert_eq!(merge(fresh(leave(&ann)), fresh(changed)).unwrap().write, leave(&ann));
    }
}

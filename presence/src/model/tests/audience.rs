//! Members of a room that check each flush as strictly as a client may.

use std::collections::BTreeMap;

use crate::name::{Epoch, PresenceId, Version};

use super::super::{
    notice::{Flush, NoticeContent},
    roster::Roster,
    tests::truth::{AllVisible, Visible, all_visible, visible},
};

/// All members that had a first frame.
#[derive(Debug, Default)]
pub(crate) struct Audience {
    members: BTreeMap<u8, Known>,
}

/// What one member knows from its first frame and the deltas after it. It only knows the number of anonymous sockets.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    position: (Epoch, Version),
    all_visible: AllVisible,
    anonymous: usize,
}

/// The presences with a user.
fn named(all_visible: impl IntoIterator<Item = (PresenceId, Visible)>) -> AllVisible {
    all_visible.into_iter().filter(|(_, (user, _))| user.is_some()).collect()
}

impl Audience {
    /// Sends a flush to the members. It must follow on what they know, and afterwards they must know what is in the roster.
    pub(crate) fn receive(&mut self, flush: Flush<u8>, roster: &Roster) {
        let Flush { from, version, epoch, content, joiners } = flush;
        let (all_visible, anonymous) = (named(all_visible(roster.iter())), roster.anonymous());
        let whole = Known { position: (epoch, version), all_visible, anonymous };
        for known in self.members.values_mut() {
            match &content {
                NoticeContent::None => assert_eq!((from, known.position), (version, (epoch, version))),
                NoticeContent::NewEpoch => {
                    assert_ne!(known.position.0, epoch);
                    *known = whole.clone();
                }
                NoticeContent::Delta(delta) => {
                    assert_eq!(known.position, (epoch, from), "the frames chain");
                    assert!(from < version && !delta.is_empty());
                    known.position = (epoch, version);
                    for presence in delta.left.iter().filter(|one| one.user.is_some()) {
                        let was = known.all_visible.remove(&presence.id).expect("the presence was known");
                        assert_eq!(was.0, presence.user, "it left with the known user");
                    }
                    for presence in delta.joined.iter().filter(|one| one.user.is_some()) {
                        assert_eq!(
                            known.all_visible.insert(presence.id, visible(presence)),
                            None,
                            "the presence was not known"
                        );
                    }
                    for presence in delta.updated.iter().filter(|one| one.user.is_some()) {
                        let was =
                            known.all_visible.insert(presence.id, visible(presence)).expect("the presence was known");
                        assert!(
                            was.0 == presence.user && was.1 != presence.meta,
                            "its user is the same, and its meta is not"
                        );
                    }
                    let has_named =
                        delta.joined.iter().chain(&delta.left).chain(&delta.updated).any(|one| one.user.is_some());
                    assert!(has_named || known.anonymous != anonymous, "no frame is empty");
                    known.anonymous = anonymous;
                }
            }
        }
        for joiner in joiners {
            assert_eq!(self.members.insert(joiner, whole.clone()), None, "a first frame is the first");
        }
        for known in self.members.values() {
            assert_eq!(*known, whole);
        }
    }

    pub(crate) fn leave(&mut self, member: u8) -> bool {
        self.members.remove(&member).is_some()
    }

    pub(crate) fn contains(&self, member: u8) -> bool {
        self.members.contains_key(&member)
    }

    /// Whether all members know exactly these presences.
    pub(crate) fn all_know(&self, all_visible: &AllVisible) -> bool {
        let anonymous = all_visible.values().filter(|(user, _)| user.is_none()).count();
        let named = named(all_visible.clone());
        self.members.values().all(|known| (&known.all_visible, known.anonymous) == (&named, anonymous))
    }
}

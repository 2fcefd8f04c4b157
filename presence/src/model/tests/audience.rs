//! The members of a room on one node, as strict as clients may be: what the tests of the model tell their flushes to.

use std::collections::BTreeMap;

use crate::name::{Epoch, PresenceId, Version};

use super::super::{
    notice::{Flush, News},
    roster::Roster,
    tests::truth::{Look, Looks, look, looks},
};

/// Everyone who had a first frame.
#[derive(Debug, Default)]
pub(crate) struct Audience {
    members: BTreeMap<u8, Heard>,
}

/// What one member made of its first frame and the deltas after it. Anonymous sockets are a number to it.
#[derive(Debug, Clone, PartialEq)]
struct Heard {
    position: (Epoch, Version),
    looks: Looks,
    anonymous: usize,
}

/// Those who have a name.
fn named(looks: impl IntoIterator<Item = (PresenceId, Look)>) -> Looks {
    looks.into_iter().filter(|(_, (user, _))| user.is_some()).collect()
}

impl Audience {
    /// Tells the members what is news to them, who must find that it follows on what they know, and believe afterwards
    /// what the roster says.
    pub(crate) fn hear(&mut self, flush: Flush<u8>, roster: &Roster) {
        let Flush { from, version, epoch, news, joiners } = flush;
        let (looks, anonymous) = (named(looks(roster.iter())), roster.anonymous());
        let whole = Heard { position: (epoch, version), looks, anonymous };
        for heard in self.members.values_mut() {
            match &news {
                News::None => assert_eq!((from, heard.position), (version, (epoch, version))),
                News::NewLife => {
                    assert_ne!(heard.position.0, epoch);
                    *heard = whole.clone();
                }
                News::Delta(delta) => {
                    assert_eq!(heard.position, (epoch, from), "the frames chain");
                    assert!(from < version && !delta.is_empty());
                    heard.position = (epoch, version);
                    for presence in delta.left.iter().filter(|one| one.user.is_some()) {
                        let was = heard.looks.remove(&presence.id).expect("it was there");
                        assert_eq!(was.0, presence.user, "and its user is the one who left");
                    }
                    for presence in delta.joined.iter().filter(|one| one.user.is_some()) {
                        assert_eq!(heard.looks.insert(presence.id, look(presence)), None, "it was not there");
                    }
                    for presence in delta.updated.iter().filter(|one| one.user.is_some()) {
                        let was = heard.looks.insert(presence.id, look(presence)).expect("it was there");
                        assert!(
                            was.0 == presence.user && was.1 != presence.meta,
                            "it is the same, and looked different"
                        );
                    }
                    let told =
                        delta.joined.iter().chain(&delta.left).chain(&delta.updated).any(|one| one.user.is_some());
                    assert!(told || heard.anonymous != anonymous, "no frame is empty");
                    heard.anonymous = anonymous;
                }
            }
        }
        for joiner in joiners {
            assert_eq!(self.members.insert(joiner, whole.clone()), None, "a first frame is the first");
        }
        for heard in self.members.values() {
            assert_eq!(*heard, whole);
        }
    }

    pub(crate) fn leave(&mut self, member: u8) -> bool {
        self.members.remove(&member).is_some()
    }

    pub(crate) fn contains(&self, member: u8) -> bool {
        self.members.contains_key(&member)
    }

    /// Whether all believe that these are there.
    pub(crate) fn all_believe(&self, looks: &Looks) -> bool {
        let anonymous = looks.values().filter(|(user, _)| user.is_none()).count();
        let named = named(looks.clone());
        self.members.values().all(|heard| (&heard.looks, heard.anonymous) == (&named, anonymous))
    }
}

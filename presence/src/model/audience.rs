//! The members of a room on one node, as strict as clients may be: what the tests of the model tell their flushes to.

use std::collections::BTreeMap;

use crate::name::{Epoch, Version};

use super::{
    notice::{Flush, News},
    roster::Roster,
    truth::{Looks, look, looks},
};

/// Everyone who had a first frame.
#[derive(Debug, Default)]
pub(crate) struct Audience {
    members: BTreeMap<u8, Heard>,
}

/// What one member made of its first frame and the deltas after it.
#[derive(Debug, Clone, PartialEq)]
struct Heard {
    position: (Epoch, Version),
    looks: Looks,
}

impl Audience {
    /// Tells the members what is news to them, who must find that it follows on what they know, and believe afterwards
    /// what the roster says.
    pub(crate) fn hear(&mut self, flush: Flush<u8>, roster: &Roster) {
        let Flush { from, version, epoch, news, joiners } = flush;
        let whole = Heard { position: (epoch, version), looks: looks(roster.iter()) };
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
                    for presence in &delta.joined {
                        assert_eq!(heard.looks.insert(presence.id, look(presence)), None, "it was not there");
                    }
                    for presence in &delta.updated {
                        let was = heard.looks.insert(presence.id, look(presence));
                        assert!(was.is_some_and(|was| was != look(presence)), "it was there and looked different");
                    }
                    for presence in &delta.left {
                        assert!(heard.looks.remove(&presence.id).is_some(), "it was there");
                    }
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
        self.members.values().all(|heard| heard.looks == *looks)
    }
}

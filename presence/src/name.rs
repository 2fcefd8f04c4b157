//! The names and ids of this crate. Each name is checked once, when it is created.
//!
//! So a value of these types is always valid, and no other code checks it again. Names are compared as bytes, here and in every database.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

/// The longest name, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 255;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The text is empty.
    #[error("a {kind} must not be empty")]
    Empty {
        /// The kind of name: `room name`, `user id`, …
        kind: &'static str,
    },
    /// The text has more than [`MAX_NAME_BYTES`] bytes.
    #[error("a {kind} has at most {MAX_NAME_BYTES} bytes, not {bytes}")]
    TooLong {
        /// The kind of name.
        kind: &'static str,
        /// Its length in bytes.
        bytes: usize,
    },
    /// The text has a control character: C0, DEL or C1.
    #[error("a {kind} must not have control characters (byte {at})")]
    Control {
        /// The kind of name.
        kind: &'static str,
        /// The offset of the first one, in bytes.
        at: usize,
    },
    /// The text has no visible character: it consists of white space and invisible characters, such as U+200B (zero width space) or U+FEFF.
    #[error("a {kind} must have a visible character")]
    Blank {
        /// The kind of name.
        kind: &'static str,
    },
    /// The text has a character that changes the direction in which text is shown: U+061C, U+200E, U+200F, U+202A to U+202E,
    /// U+2066 to U+2069. It could look like another name, and change the order of the text beside it.
    #[error("a {kind} must not have characters that change the direction of text (byte {at})")]
    Direction {
        /// The kind of name.
        kind: &'static str,
        /// The offset of the first one, in bytes.
        at: usize,
    },
}

/// Whether a character changes the direction of text (`Bidi_Control` of Unicode).
const fn changes_direction(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether a character is invisible: white space, `Default_Ignorable_Code_Point` of Unicode, and the blank of Braille.
fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}')
        || matches!(c, '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}')
        || matches!(c, '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Checks a new name.
fn check(kind: &'static str, text: &str) -> Result<(), NameError> {
    check_stored(kind, text)?;
    if let Some((at, _)) = text.char_indices().find(|(_, c)| changes_direction(*c)) {
        return Err(NameError::Direction { kind, at });
    }
    if text.chars().all(is_invisible) {
        return Err(NameError::Blank { kind });
    }
    Ok(())
}

/// Checks a name from a database. Earlier versions accepted names that [`check`] refuses, and these may still be in use.
fn check_stored(kind: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { kind });
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong { kind, bytes: text.len() });
    }
    match text.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, _)) => Err(NameError::Control { kind, at }),
        None => Ok(()),
    }
}

/// Implements the conversions from a text, by the function `new` of the type.
macro_rules! from_text {
    ($type:ident, $error:ident) => {
        impl std::str::FromStr for $type {
            type Err = $error;
            fn from_str(text: &str) -> Result<Self, $error> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = $error;
            fn try_from(text: String) -> Result<Self, $error> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $type {
            type Error = $error;
            fn try_from(text: &str) -> Result<Self, $error> {
                Self::new(text)
            }
        }
    };
}
pub(crate) use from_text;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        ///
        /// It has 1 to 255 bytes of UTF-8, at least one visible character, no control characters (C0, DEL, C1) and no characters that
        /// change the direction of text. Names are compared as bytes. A clone only increments a reference count.
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Creates a name from `text`.
            ///
            /// # Errors
            /// [`NameError`] with the rule that `text` violates.
            pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
                let text = text.as_ref();
                check($kind, text)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            // `#[serde(into)]` would allocate a `String` for each name in each frame.
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        from_text!($name, NameError);

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                (*name.0).into()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// The name of a room.
    RoomName, "room name"
}
name! {
    /// The id of a user. A user may have any number of presences in a room, one for each socket.
    UserId, "user id"
}
name! {
    /// The address of one socket, unique over all nodes. A socket that resumes a presence has a new one.
    ChannelName, "channel name"
}
name! {
    /// The name of a group: sockets that receive what is sent to the group, without a presence. Every room has a group with the room's name,
    /// which is separate from these.
    GroupName, "group name"
}
name! {
    /// The name of a node, by default the address that it listens on. It stays the same after a restart, unlike the [`NodeId`].
    NodeName, "node name"
}
name! {
    /// The name of an [`Event`](crate::Event) that is sent to consumers.
    EventName, "event name"
}

#[cfg(feature = "sql")]
macro_rules! stored {
    ($($name:ident: $kind:literal),*) => {
        $(
            impl $name {
                /// A name from a database. An earlier version may have accepted it.
                pub(crate) fn stored(text: String) -> Result<Self, NameError> {
                    check_stored($kind, &text)?;
                    Ok(Self(text.into()))
                }
            }
        )*
    };
}

#[cfg(feature = "sql")]
stored! { RoomName: "room name", UserId: "user id", ChannelName: "channel name", NodeName: "node name" }

impl NodeName {
    /// The name of a process that listens on `port` of this machine: `HOST:PORT`.
    ///
    /// ```
    /// use presence::NodeName;
    ///
    /// assert!(NodeName::of_host(8080)?.as_str().ends_with(":8080"));
    /// # Ok::<(), presence::NameError>(())
    /// ```
    ///
    /// # Errors
    /// [`NameError`] if the name of the machine is not a valid node name.
    pub fn of_host(port: u16) -> Result<Self, NameError> {
        Self::new(format!("{}:{port}", gethostname::gethostname().to_string_lossy()))
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Creates a new id. It is a `UUIDv7`: later ids sort later, which keeps database indexes dense.
            #[must_use]
            pub fn random() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id with this UUID.
            #[must_use]
            pub const fn from_uuid(id: Uuid) -> Self {
                Self(id)
            }

            /// The UUID.
            #[must_use]
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id! {
    /// The id of a presence. It stays the same when the presence is held and resumed.
    PresenceId
}
id! {
    /// The incarnation of a node. A process that restarts under the same [`NodeName`] has another one.
    NodeId
}
id! {
    /// The incarnation of a room. A [`Version`] has no meaning without it, and two epochs have no order.
    Epoch
}

id! {
    /// The id of a request to all nodes. Each of them answers it.
    RequestId
}

/// The position in the changes of a room: 0 at first, and one more for each transaction that changes the room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // behaviour: W18 names
    #[test]
    fn a_name_has_from_1_to_255_bytes() {
        assert_eq!(RoomName::new(""), Err(NameError::Empty { kind: "room name" }));
        assert!(RoomName::new("é".repeat(127)).is_ok());
        let long = NameError::TooLong { kind: "room name", bytes: 256 };
        assert_eq!(RoomName::new("é".repeat(128)), Err(long));
    }

    // behaviour: W18 names; 7 names
    #[test]
    fn a_name_holds_no_c0_del_or_c1_control() {
        for control in ['\0', '\n', '\u{1f}', '\u{7f}', '\u{80}', '\u{9f}'] {
            let error = NameError::Control { kind: "user id", at: 1 };
            assert_eq!(UserId::new(format!("a{control}")), Err(error));
        }
        for fine in ["/", "%00", "🦀", "a b", "é"] {
            assert!(UserId::new(fine).is_ok(), "{fine:?}");
        }
    }

    #[test]
    fn a_name_has_a_visible_character() {
        for blank in [
            " ",
            "\u{a0}",
            "\u{3000} ",
            "\u{200b}",
            "\u{200d}\u{feff}",
            "\u{2800}",
            "\u{3164}",
            "\u{e0041}",
            "\u{fe0f}",
        ] {
            assert_eq!(UserId::new(blank), Err(NameError::Blank { kind: "user id" }), "{blank:?}");
        }
        // Within a name they have a meaning: they join emoji, and separate letters in Persian.
        for fine in ["a ", "👩\u{200d}👧", "نمی\u{200c}شود", "❤\u{fe0f}", "x\u{feff}"] {
            assert!(UserId::new(fine).is_ok(), "{fine:?}");
        }
    }

    #[test]
    fn a_name_does_not_change_the_direction_of_text() {
        for c in ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}').chain(['\u{61c}', '\u{200e}', '\u{200f}']) {
            let error = NameError::Direction { kind: "room name", at: 2 };
            assert_eq!(RoomName::new(format!("an{c}n")), Err(error), "{c:?}");
        }
        assert!(RoomName::new("\u{5e9}\u{5dc}\u{5d5}\u{5dd}").is_ok(), "scripts from right to left are valid");
    }

    #[cfg(feature = "sql")]
    #[test]
    fn a_name_that_an_earlier_version_accepted_is_read_from_a_database() {
        for old in [" ", "\u{200b}", "a\u{202e}b"] {
            assert_eq!(UserId::stored(old.to_owned()).unwrap().as_str(), old);
        }
        assert!(UserId::stored("a\0".to_owned()).is_err());
    }

    #[test]
    fn a_name_from_json_is_checked() {
        assert!(serde_json::from_str::<RoomName>(r#""a\u0000""#).is_err());
        assert_eq!(serde_json::from_str::<RoomName>(r#""a""#).unwrap().as_str(), "a");
    }
}

//! Resume tokens: a client that lost its socket proves with its token that a presence is its own.
//!
//! A token is a secret of the client. It is never shown, and only kept in the memory of this process. The database has a hash of the room,
//! the user and the token. The hash does not reveal the token, and is not valid for another room or user.

use std::{fmt, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};

use crate::name::{RoomName, UserId, from_text};

/// The fewest characters of a [`ResumeToken`].
pub const MIN_TOKEN_CHARS: usize = 16;
/// The most characters of a [`ResumeToken`].
pub const MAX_TOKEN_CHARS: usize = 128;

/// Why a text is not a resume token. The error does not contain the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It has fewer than [`MIN_TOKEN_CHARS`] or more than [`MAX_TOKEN_CHARS`] characters.
    #[error("a resume token has {MIN_TOKEN_CHARS} to {MAX_TOKEN_CHARS} characters, not {chars}")]
    Length {
        /// How many it has.
        chars: usize,
    },
    /// It has a character other than `A–Z a–z 0–9 _ -`.
    #[error("a resume token may only have the characters `A-Z a-z 0-9 _ -` (character {at})")]
    Character {
        /// Its index, counted from 0.
        at: usize,
    },
}

/// The secret with which a client resumes its presence after it lost its socket: 16 to 128 of the characters `A–Z a–z 0–9 _ -`, which the
/// client chooses at random. Whoever knows the token and has the same user can resume the presence.
///
/// ```
/// use presence::ResumeToken;
///
/// let token = ResumeToken::new("3q2-7wAAAAB_5fE9Yd0T1w")?;
/// assert_eq!(format!("{token:?}"), "ResumeToken(..)");
/// assert!(ResumeToken::new("too short").is_err());
/// # Ok::<(), presence::TokenError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ResumeToken(Arc<str>);

impl ResumeToken {
    /// Creates a token from `text`.
    ///
    /// # Errors
    /// [`TokenError`] with the rule that `text` violates.
    pub fn new(text: impl AsRef<str>) -> Result<Self, TokenError> {
        let text = text.as_ref();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if let Some(at) = text.chars().position(|c| !allowed(c)) {
            return Err(TokenError::Character { at });
        }
        if !(MIN_TOKEN_CHARS..=MAX_TOKEN_CHARS).contains(&text.len()) {
            return Err(TokenError::Length { chars: text.len() });
        }
        Ok(Self(text.into()))
    }

    /// The hash for a presence of `user`, or an anonymous one, in `room`.
    pub(crate) fn hash(&self, room: &RoomName, user: Option<&UserId>) -> SessionHash {
        let mut hash = Sha256::new();
        hash.update(b"presence session\0");
        // Names have no control characters, so different triples have different bytes.
        hash.update(room.as_str());
        hash.update(if user.is_some() { b"\0u" } else { b"\0a" });
        hash.update(user.map_or("", UserId::as_str));
        hash.update(b"\0");
        hash.update(&*self.0);
        SessionHash(hash.finalize().into())
    }
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeToken(..)")
    }
}

from_text!(ResumeToken, TokenError);

/// The SHA-256 hash of a room, a user if there is one, and a resume token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionHash([u8; 32]);

impl SessionHash {
    /// The hash with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SessionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionHash(..)")
    }
}

/// The hash by which a presence can be resumed, and how long it is held when its socket is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// The hash of its room, its user and the token of its client.
    pub hash: SessionHash,
    /// How long the presence is held.
    pub grace: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    #[test]
    fn a_token_has_16_to_128_characters() {
        for (chars, good) in [(0, false), (15, false), (16, true), (128, true), (129, false)] {
            let made = ResumeToken::new("x".repeat(chars));
            assert_eq!(made.is_ok(), good, "{chars}");
            assert!(good || made == Err(TokenError::Length { chars }));
        }
    }

    #[test]
    fn a_token_has_only_letters_digits_underscores_and_hyphens() {
        assert!(ResumeToken::new("AZaz09_-AZaz09_-").is_ok());
        for bad in ['.', ' ', '+', '/', '=', '~', 'é', '\0', '%'] {
            let made = ResumeToken::new(format!("{TOKEN}{bad}"));
            assert_eq!(made, Err(TokenError::Character { at: 16 }), "{bad:?}");
        }
    }

    #[test]
    fn neither_a_token_nor_its_hash_is_printed() {
        let token = ResumeToken::new(TOKEN).unwrap();
        let hash = token.hash(&RoomName::new("a").unwrap(), None);
        assert_eq!(format!("{token:?} {hash:?}"), "ResumeToken(..) SessionHash(..)");
        assert!(!format!("{:?}", ResumeToken::new(format!("{TOKEN}!")).unwrap_err()).contains(TOKEN));
    }

    #[test]
    fn another_room_user_or_token_has_another_hash() {
        let room = |name: &str| RoomName::new(name).unwrap();
        let user = |name: &str| UserId::new(name).unwrap();
        let token = |text: &str| ResumeToken::new(text).unwrap();
        let hashes = [
            token(TOKEN).hash(&room("a"), None),
            token(TOKEN).hash(&room("b"), None),
            token(TOKEN).hash(&room("a"), Some(&user("a"))),
            token(TOKEN).hash(&room("a"), Some(&user("b"))),
            token(&format!("{TOKEN}x")).hash(&room("a"), None),
            token(&format!("{TOKEN}x")).hash(&room("a"), Some(&user("a"))),
            token(TOKEN).hash(&room("au"), None),
            token(TOKEN).hash(&room("a"), Some(&user(TOKEN))),
        ];
        let distinct: std::collections::HashSet<_> = hashes.iter().collect();
        assert_eq!(distinct.len(), hashes.len());
        assert_eq!(token(TOKEN).hash(&room("a"), None), hashes[0]);
    }
}

//! The texts by which a client says that it is still there.
//!
//! A page sees neither pings nor pongs, so it cannot notice by itself that its server is gone. One heartbeat is therefore
//! answered: the JSON object. The plain text of django-channels-presence is not, as there.

use std::{borrow::Cow, sync::LazyLock};

use serde::Deserialize;

use crate::{
    Frame, Socket,
    delivery::wire::{self, Frames},
};

/// The text by which a client says that it is still there: a JSON string, quotes included. `#[touch_presence]` swallows it.
/// As in django-channels-presence.
pub const HEARTBEAT: &str = "\"heartbeat\"";

/// The text by which a client says that it is still there, and asks whether the server is. `#[touch_presence]` swallows it, and
/// sends the same text back to this client alone. Any JSON object counts whose only key is `type`, with this value, if the text has
/// at most 128 bytes.
pub const ANSWERED_HEARTBEAT: &str = r#"{"type":"heartbeat"}"#;

/// A longer text is not looked at. One in which each character is escaped has 98 bytes.
const MAX_BYTES: usize = 128;

/// The answer, encoded once.
static ANSWER: LazyLock<Frames> = LazyLock::new(|| wire::text(ANSWERED_HEARTBEAT));

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Beat<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
}

/// Whether the text asks for an answer.
fn asks(text: &str) -> bool {
    if text == ANSWERED_HEARTBEAT {
        return true;
    }
    // An ordinary text costs no more than this. Without the brace, serde would also take the array `["heartbeat"]`.
    let may_be = (ANSWERED_HEARTBEAT.len()..=MAX_BYTES).contains(&text.len())
        && text.trim_ascii_start().starts_with('{')
        && (text.contains("heartbeat") || text.contains('\\'));
    may_be && serde_json::from_str::<Beat<'_>>(text).is_ok_and(|beat| beat.r#type == "heartbeat")
}

/// Answers a heartbeat that asks for it. Returns whether the frame is one, or is one of these texts: then it is swallowed.
///
/// The answer waits as any other frame does while the client does not read, so answers do not pile up.
pub(crate) async fn swallows(socket: &Socket, frame: &Frame, texts: &[&str]) -> bool {
    let Frame::Text(text) = frame else { return false };
    if asks(text) {
        // A socket that is closing takes nothing any more, and needs no answer.
        socket.outbox.send(&ANSWER).await;
        return true;
    }
    texts.contains(&&**text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_object_that_holds_nothing_but_the_type_heartbeat_asks_for_an_answer() {
        let escaped: String = "heartbeat".chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
        let key: String = "type".chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
        let all = format!(r#"{{"{key}":"{escaped}"}}"#);
        for text in [ANSWERED_HEARTBEAT, "\n{ \"type\" :\t\"heartbeat\"\r\n} ", &all] {
            assert!(asks(text), "{text}");
        }
    }

    #[test]
    fn no_other_text_asks_for_an_answer() {
        let long = format!("{ANSWERED_HEARTBEAT}{}", " ".repeat(MAX_BYTES));
        for text in [
            "",
            HEARTBEAT,
            "heartbeat",
            r#"["heartbeat"]"#,
            r#"{"type":"heartbeat","at":1}"#,
            r#"{"type":"heartbeat","type":"heartbeat"}"#,
            r#"{"type":{"heartbeat":null}}"#,
            r#"{"type":["heartbeat"]}"#,
            r#"{"Type":"heartbeat"}"#,
            r#"{"type":"Heartbeat"}"#,
            r#"{"type":"heartbeat"}}"#,
            r#"{"type":"heartbeat""#,
            r#"{"text":"a heartbeat"}"#,
            &long,
        ] {
            assert!(!asks(text), "{text}");
        }
    }
}

//! The heartbeats: texts that a client sends to show that it is still there.
//!
//! A page sees neither pings nor pongs, so it cannot notice by itself that its server does not answer any more. Therefore one heartbeat,
//! the JSON object, is answered. The plain text is not answered, as in django-channels-presence.

use std::{borrow::Cow, sync::LazyLock};

use serde::Deserialize;

use crate::{
    Frame, Socket,
    delivery::wire::{self, Frames},
};

/// The plain heartbeat: a JSON string, quotes included, as in django-channels-presence. `#[touch_presence]` swallows it.
pub const HEARTBEAT: &str = "\"heartbeat\"";

/// The heartbeat that is answered. `#[touch_presence]` swallows it, and sends the same text back to this client alone, so that a page
/// knows that the server is there. Any JSON object is one if its only key is `type`, with this value, and the text has at most 128 bytes.
pub const ANSWERED_HEARTBEAT: &str = r#"{"type":"heartbeat"}"#;

/// A longer text is never parsed as a heartbeat. If each character is escaped, a heartbeat has 98 bytes.
const MAX_BYTES: usize = 128;

/// The answer, encoded once.
static ANSWER: LazyLock<Frames> = LazyLock::new(|| wire::text(ANSWERED_HEARTBEAT));

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Beat<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
}

/// Whether the text is a heartbeat that is answered.
fn is_answered(text: &str) -> bool {
    if text.len() < ANSWERED_HEARTBEAT.len() {
        return false;
    }
    if text == ANSWERED_HEARTBEAT {
        return true;
    }
    // These checks keep ordinary texts cheap. Without the brace, serde would also accept the array `["heartbeat"]`.
    let may_be = text.len() <= MAX_BYTES
        && text.trim_ascii_start().starts_with('{')
        && (text.contains("heartbeat") || text.contains('\\'));
    may_be && serde_json::from_str::<Beat<'_>>(text).is_ok_and(|beat| beat.r#type == "heartbeat")
}

/// Returns whether the frame is a heartbeat, which the consumer does not receive: the one that is answered, or one of these texts.
///
/// The answer waits as any other frame while the client does not read, so answers do not pile up.
pub(crate) async fn swallows(socket: &Socket, frame: &Frame, texts: &[&str]) -> bool {
    let Frame::Text(text) = frame else { return false };
    if is_answered(text) {
        // A closing socket sends nothing more, and needs no answer.
        socket.outbox.send(&ANSWER).await;
        return true;
    }
    texts.contains(&&**text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_object_with_only_the_type_heartbeat_is_answered() {
        let escaped: String = "heartbeat".chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
        let key: String = "type".chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
        let all = format!(r#"{{"{key}":"{escaped}"}}"#);
        for text in [ANSWERED_HEARTBEAT, "\n{ \"type\" :\t\"heartbeat\"\r\n} ", &all] {
            assert!(is_answered(text), "{text}");
        }
    }

    #[test]
    fn no_other_text_is_answered() {
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
            assert!(!is_answered(text), "{text}");
        }
    }
}

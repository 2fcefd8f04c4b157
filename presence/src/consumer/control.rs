//! The control frames that a server sends.

use actix_http::ws::{CloseReason, Codec, Message};
use bytes::{Bytes, BytesMut};
use tokio_util::codec::Encoder;

use crate::room::wire::Frames;

pub(super) fn ping() -> Frames {
    Frames { bytes: encode(Message::Ping(Bytes::new())), count: 1 }
}

pub(super) fn pong(payload: Bytes) -> Frames {
    Frames { bytes: encode(Message::Pong(payload)), count: 1 }
}

/// A Close with a code and a reason, which is cut to fit, or with neither.
pub(super) fn close(reason: Option<(u16, String)>) -> Bytes {
    encode(Message::Close(reason.map(|(code, reason)| CloseReason {
        code: code.into(),
        description: Some(reason).filter(|reason| !reason.is_empty()).map(cut_to_fit),
    })))
}

/// A control frame holds 125 bytes, two of which are the code.
fn cut_to_fit(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(123));
    reason
}

fn encode(message: Message) -> Bytes {
    let mut bytes = BytesMut::new();
    Codec::new().encode(message, &mut bytes).expect("control frames always encode");
    bytes.freeze()
}

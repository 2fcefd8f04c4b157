//! Encodes control frames: pings, pongs and Closes.

use actix_http::ws::{self, Codec};
use bytes::{Bytes, BytesMut};
use tokio_util::codec::Encoder;
use tracing::debug;

use crate::{CloseCode, delivery::wire::Frames};

/// A control frame has at most 125 bytes, and two of them are the code.
const MAX_REASON_BYTES: usize = 123;

pub(super) fn control(message: ws::Message) -> Frames {
    Frames { bytes: encode(message), count: 1 }
}

/// A Close. Its reason is cut to [`MAX_REASON_BYTES`].
pub(super) fn close_frame(reason: Option<(CloseCode, String)>) -> Bytes {
    encode(ws::Message::Close(reason.map(|(code, reason)| ws::CloseReason {
        code: code.0.into(),
        description: Some(reason).filter(|reason| !reason.is_empty()).map(cut_to_fit),
    })))
}

fn cut_to_fit(mut reason: String) -> String {
    if reason.len() > MAX_REASON_BYTES {
        debug!(bytes = reason.len(), "the reason of a Close is too long for its frame, and is cut");
    }
    reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
    reason
}

fn encode(message: ws::Message) -> Bytes {
    let mut bytes = BytesMut::new();
    Codec::new().encode(message, &mut bytes).expect("control frames always encode");
    bytes.freeze()
}

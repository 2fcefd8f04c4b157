//! Control frames: pings, pongs and Closes as bytes.

use actix_http::ws::{self, Codec};
use bytes::{Bytes, BytesMut};
use tokio_util::codec::Encoder;

use crate::room::wire::Frames;

pub(super) fn control(message: ws::Message) -> Frames {
    Frames { bytes: encode(message), count: 1 }
}

/// A Close; its reason is cut to fit.
pub(super) fn close_frame(reason: Option<(u16, String)>) -> Bytes {
    encode(ws::Message::Close(reason.map(|(code, reason)| ws::CloseReason {
        code: code.into(),
        description: Some(reason).filter(|reason| !reason.is_empty()).map(cut_to_fit),
    })))
}

/// A control frame holds 125 bytes, two of which are the code.
fn cut_to_fit(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(123));
    reason
}

fn encode(message: ws::Message) -> Bytes {
    let mut bytes = BytesMut::new();
    Codec::new().encode(message, &mut bytes).expect("control frames always encode");
    bytes.freeze()
}

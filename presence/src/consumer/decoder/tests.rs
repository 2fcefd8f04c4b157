//! The result does not depend on how the bytes are divided into reads.

use crate::CloseCode;
use proptest::prelude::*;

use super::{
    pieces::{KEPT_CHUNK, KEPT_PART, MOST_BESIDES, PayloadPiece},
    *,
};

const LARGEST_FRAME: usize = 64 * 1024;
const LARGEST_MESSAGE: usize = 256 * 1024;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CONTINUE: u8 = 0;
const PING: u8 = 9;

fn frame(last: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![if last { LAST | opcode } else { opcode }];
    match payload.len() {
        len if len < 126 => frame.push(MASKED | u8::try_from(len).unwrap()),
        len if len < 65536 => {
            frame.push(MASKED | IN_2_BYTES);
            frame.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            frame.push(MASKED | IN_8_BYTES);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    let mask = [0x1f, 0x2e, 0x3d, u8::try_from(payload.len() % 251).unwrap()];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn decoder() -> Decoder {
    Decoder::new(LARGEST_FRAME, LARGEST_MESSAGE)
}

/// Everything that is decoded from these chunks, up to the first violation.
fn decoded(decoder: &mut Decoder, chunks: impl IntoIterator<Item = Bytes>) -> Vec<Result<Sent, Violation>> {
    let mut all = Vec::new();
    for chunk in chunks {
        decoder.feed(chunk);
        while let Some(next) = decoder.next().transpose() {
            let is_violation = next.is_err();
            all.push(next);
            if is_violation {
                return all;
            }
        }
    }
    all
}

/// The memory that an unfinished message takes, if each chunk is in its own memory.
fn held(decoder: &Decoder) -> usize {
    let of = |piece: &PayloadPiece| match piece {
        PayloadPiece::Kept(bytes, _) => bytes.len(),
        PayloadPiece::Copied(bytes) => bytes.capacity(),
    };
    decoder.message.as_ref().unwrap().payload.pieces.iter().map(of).sum()
}

#[test]
fn a_text_that_is_compared_where_it_arrived_is_the_same_as_in_pieces() {
    let changed = |text: &str, at: usize| {
        let mut text = text.as_bytes().to_vec();
        text[at] ^= 1;
        text
    };
    let known = KNOWN_TEXTS.map(|text| text.as_bytes().to_vec());
    let similar = KNOWN_TEXTS.iter().flat_map(|text| (0..text.len()).map(|at| changed(text, at)));
    let mut texts: Vec<_> = known.into_iter().chain(similar).collect();
    texts.extend([HEARTBEAT.as_bytes()[1..].to_vec(), format!("{HEARTBEAT} ").into_bytes()]);
    let of_frames = texts.iter().flat_map(|text| {
        let of_two = [frame(false, TEXT, &text[..3]), frame(true, CONTINUE, text)].concat();
        [frame(true, TEXT, text), frame(true, BINARY, text), frame(true, PING, text), of_two]
    });
    let bytes = Bytes::from(of_frames.collect::<Vec<_>>().concat());
    let whole = decoded(&mut decoder(), [bytes.clone()]);
    let in_pieces = decoded(&mut decoder(), bytes.chunks(1).map(Bytes::copy_from_slice));
    assert_eq!(whole, in_pieces);
    assert_eq!(whole.len(), 4 * texts.len());
    assert_eq!(whole[0], Ok(Sent::Data(Frame::Text(HEARTBEAT.into()))));
    assert!(Decoder::new(4, 4).known_text().is_none(), "nothing has arrived");
    let mut small = Decoder::new(4, 4);
    let too_large = decoded(&mut small, [Bytes::from(frame(true, TEXT, HEARTBEAT.as_bytes()))]);
    assert_eq!(too_large, [Err(Violation::new(CloseCode::TOO_LARGE, "frame too large"))]);
}

#[test]
fn repetitions_of_a_heartbeat_are_read_at_once_and_nothing_else_is() {
    for heartbeat in KNOWN_TEXTS {
        let (beat, other) = (frame(true, TEXT, heartbeat.as_bytes()), frame(true, TEXT, b"hello"));
        let sent = Bytes::from([[beat.as_slice(); 5].concat(), other, beat].concat());
        let mut decoder = decoder();
        let is = |next: Result<Option<Sent>, Violation>, text: &'static str| {
            assert_eq!(next, Ok(Some(Sent::Data(Frame::Text(text.into())))));
        };
        decoder.feed(sent.slice(..sent.len() - 1));
        is(decoder.next(), heartbeat);
        assert_eq!(decoder.repetitions(0), 0);
        assert_eq!(decoder.repetitions(3), 3, "there is no space for more");
        assert_eq!(decoder.repetitions(usize::MAX), 1, "the last before another text");
        is(decoder.next(), "hello");
        assert_eq!(decoder.repetitions(usize::MAX), 0, "another text may come again, but is not a heartbeat");
        assert_eq!(decoder.next(), Ok(None));
        assert_eq!(decoder.repetitions(usize::MAX), 0, "a part of a heartbeat");
        decoder.feed(sent.slice(sent.len() - 1..));
        is(decoder.next(), heartbeat);
        assert_eq!(decoder.repetitions(usize::MAX), 0);
    }
}

#[test]
fn an_unfinished_message_takes_little_more_memory_than_its_size() {
    for piece in [1, 100, 4096, 62_000] {
        for chunk in [100, 1448, 16_384, 65_536, 131_072] {
            let frames = frame(false, CONTINUE, &vec![b'x'; piece]).repeat(248_000 / piece - 1);
            let all = Bytes::from([frame(false, TEXT, &vec![b'x'; piece]), frames].concat());
            let chunks = (0..all.len().div_ceil(chunk))
                .map(|n| Bytes::copy_from_slice(&all[n * chunk..all.len().min((n + 1) * chunk)]));
            let mut decoder = decoder();
            for part in chunks {
                assert_eq!(decoded(&mut decoder, [part]), []);
                let (held, len) = (held(&decoder), decoder.message.as_ref().unwrap().payload.len);
                let most = (len + len / 16).max(piece);
                assert!(held <= most, "{held} for {len} in frames of {piece}, {chunk} at a time");
            }
        }
    }
}

#[test]
fn memory_that_holds_mostly_other_frames_is_released() {
    // Between the frames of one message, pings arrive that have eight times as many bytes.
    let pings = frame(true, PING, &[b'x'; 100]).repeat(8 * KEPT_PART / 106);
    let part = frame(false, CONTINUE, &[b'x'; KEPT_PART]);
    let chunks =
        [&part, &pings, &pings, &part, &pings, &part, &part].map(|frames| frames.repeat(KEPT_CHUNK / frames.len() + 1));
    let mixed = [&pings[..], &pings, &part, &pings].concat();
    let (mut decoder, mut received) = (decoder(), Vec::new());
    decoded(&mut decoder, [frame(false, TEXT, b"x").into()]);
    for chunk in
        [&mixed, &mixed, &mixed, &mixed, &chunks[0], &chunks[1], &chunks[2], &mixed, &mixed, &mixed, &chunks[5], &mixed]
    {
        let chunk = Bytes::from(chunk.clone());
        received.push(chunk.clone());
        decoded(&mut decoder, [chunk.clone()]);
        let held: usize = received.iter().filter(|chunk| !chunk.is_unique()).map(Bytes::len).sum();
        let len = decoder.message.as_ref().unwrap().payload.len;
        // The last chunk, and before it no more than twice the message and one more chunk.
        assert!(held <= MOST_BESIDES * len + 2 * chunks[1].len(), "{held} for {len}");
    }
    let len = decoder.message.as_ref().unwrap().payload.len;
    let all = decoded(&mut decoder, [frame(true, CONTINUE, b"x").into()]);
    assert_eq!(all, [Ok(Sent::Data(Frame::Text("x".repeat(len + 1).into())))]);
}

#[test]
fn a_decoded_chunk_is_released_only_when_the_next_one_arrives() {
    let mut decoder = decoder();
    let chunk = Bytes::from(frame(true, TEXT, b"one"));
    decoded(&mut decoder, [chunk.clone()]);
    // So that the HTTP server does not reuse its memory, and reads into a buffer of the usual size.
    assert!(!chunk.is_unique());
    decoded(&mut decoder, [frame(true, TEXT, b"two").into()]);
    assert!(chunk.is_unique());
}

#[test]
fn a_header_is_refused_before_its_payload_arrives() {
    let refused = |header: &[u8]| decoded(&mut decoder(), [Bytes::copy_from_slice(header)]);
    let protocol = |reason| [Err(protocol(reason))];
    assert_eq!(refused(&[LAST | TEXT | 0x40, MASKED]), protocol("malformed frame"));
    assert_eq!(refused(&[LAST | TEXT, 0]), protocol("malformed frame"), "not masked");
    assert_eq!(refused(&[LAST | 0x3, MASKED]), protocol("malformed frame"), "an undefined opcode");
    assert_eq!(refused(&[LAST | PING, MASKED | IN_2_BYTES]), protocol("control frame over 125 bytes"));
    assert_eq!(refused(&[PING, MASKED, 0, 0, 0, 0]), protocol("fragmented control frame"));
    assert_eq!(refused(&[CONTINUE, MASKED, 0, 0, 0, 0]), protocol("continuation of nothing"));
    let negative = [LAST | TEXT, MASKED | IN_8_BYTES, 0x80, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(refused(&negative), protocol("frame length with the high bit set"));
    let large = [LAST | TEXT, MASKED | IN_8_BYTES, 0, 0, 0, 0, 0, 1, 0, 1];
    assert_eq!(refused(&large), [Err(Violation::new(CloseCode::TOO_LARGE, "frame too large"))]);
    let in_close = Violation { in_close: true, ..super::protocol("malformed frame") };
    assert_eq!(refused(&[LAST | 0x8, 0]), [Err(in_close)]);
}

#[derive(Debug, Clone)]
enum Message {
    Data { is_text: bool, frames: Vec<Vec<u8>>, pings: bool },
    Ping(Vec<u8>),
}

fn message() -> impl Strategy<Value = Message> {
    let size = prop_oneof![0_usize..300, 16_000_usize..20_000, 60_000_usize..65_536];
    let payload = (size, proptest::num::u8::ANY).prop_map(|(len, from)| {
        (0..len)
            .map(|n| b'a' + (from.wrapping_add(u8::try_from(n % 251).unwrap_or_default()) % 26))
            .collect::<Vec<u8>>()
    });
    let data = (proptest::bool::ANY, proptest::collection::vec(payload, 1..4), proptest::bool::ANY);
    prop_oneof![
        3 => data.prop_map(|(is_text, frames, pings)| Message::Data { is_text, frames, pings }),
        1 => proptest::collection::vec(proptest::num::u8::ANY, 0..126).prop_map(Message::Ping),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_same_frames_are_decoded_however_the_bytes_are_divided(
        messages in proptest::collection::vec(message(), 1..6),
        cuts in proptest::collection::vec(prop_oneof![1_usize..40, 1000_usize..3000, 30_000_usize..140_000], 1..40),
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for message in messages {
            match message {
                Message::Data { is_text, frames, pings } => {
                    for (n, payload) in frames.iter().enumerate() {
                        let opcode = if n > 0 { CONTINUE } else if is_text { TEXT } else { BINARY };
                        bytes.extend(frame(n + 1 == frames.len(), opcode, payload));
                        if pings && n + 1 < frames.len() {
                            bytes.extend(frame(true, PING, b"between"));
                            expected.push(Ok(Sent::Ping(Bytes::from_static(b"between"))));
                        }
                    }
                    expected.push(Ok(Sent::Data(whole(is_text, frames.concat().into()).unwrap())));
                }
                Message::Ping(payload) => {
                    bytes.extend(frame(true, PING, &payload));
                    expected.push(Ok(Sent::Ping(payload.into())));
                }
            }
        }
        let mut rest = Bytes::from(bytes);
        let mut cuts = cuts.into_iter().cycle();
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let at = cuts.next().unwrap_or(1).min(rest.len());
            chunks.push(rest.split_to(at));
        }
        prop_assert_eq!(decoded(&mut decoder(), chunks), expected);
    }
}

//! The client of a test does what a real client does while time moves.

use super::*;
use crate::{
    Config, MemoryStore, NodeName, PruningSupervisor, RoomName, Socket, UserId,
    testing::{ManualTime, Probe},
};

/// Joins the lobby, and is touched by every frame.
struct Visitor(RoomName);

impl Consumer for Visitor {
    async fn connect(&mut self, socket: &mut Socket) -> crate::Result<()> {
        socket.join(&self.0).await
    }

    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> crate::Result<()> {
        socket.touch();
        match frame {
            Frame::Text(reason) => socket.close(CloseCode(4001), reason),
            Frame::Binary(_) => Ok(()),
        }
    }
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A node with the default settings and the socket of ann, who is in the lobby.
async fn ann_in_the_lobby() -> (ManualTime, Rooms, TestSocket) {
    let time = ManualTime::pause();
    let config = Config::builder().room_threads(0).build().unwrap();
    let rooms = Rooms::start(config, MemoryStore::default(), NodeName::new("test").unwrap());
    PruningSupervisor::spawn(&rooms);
    rooms.ready().await;
    let upgrade = TestSocket::upgrade(&rooms).user(Some(UserId::new("ann").unwrap()));
    let mut ann = TestSocket::connect(upgrade, Visitor(RoomName::new("lobby").unwrap())).await.unwrap();
    assert!(matches!(ann.receive().await, Received::Frame(_)), "the first frame");
    (time, rooms, ann)
}

#[actix::test]
async fn a_socket_that_sends_in_time_stays_however_much_time_passes_before_the_test_receives() {
    let (time, rooms, mut ann) = ann_in_the_lobby().await;
    let mut changes = Probe::new(&rooms);
    for _ in 0..5 {
        time.advance(secs(50)).await;
        ann.send_binary("here");
    }
    assert!(changes.nothing().await);
    assert!(ann.receive_nothing().await);
}

#[actix::test]
async fn a_frame_counts_from_when_the_test_sent_it() {
    let (time, rooms, mut ann) = ann_in_the_lobby().await;
    let lobby = RoomName::new("lobby").unwrap();
    time.advance(secs(30)).await;
    ann.send_binary("here");
    time.advance(secs(60)).await;
    assert_eq!(rooms.members(&lobby).await.unwrap().len(), 1, "seen exactly `max_age` ago");
    time.advance(secs(1)).await;
    assert!(rooms.members(&lobby).await.unwrap().is_empty());
}

#[actix::test]
async fn a_socket_that_sends_nothing_is_closed_as_stale_and_the_test_can_read_the_code() {
    let (time, rooms, mut ann) = ann_in_the_lobby().await;
    let mut changes = Probe::new(&rooms);
    assert_eq!((ann.close_code(), ann.close_reason()), (None, None));
    time.advance(secs(59)).await;
    assert_eq!(ann.close_code(), None);
    time.advance(secs(2)).await;
    assert_eq!(ann.close_code(), Some(CloseCode::STALE));
    assert_eq!(ann.close_reason(), Some("stale"));
    assert_eq!(changes.bulk().await.len(), 1);
    assert_eq!(ann.receive().await, Received::Close(Some(CloseCode::STALE)));
    assert_eq!(ann.receive().await, Received::End);
}

#[actix::test]
async fn the_code_and_the_reason_of_a_close_can_be_read() {
    let (time, _rooms, mut ann) = ann_in_the_lobby().await;
    ann.send_text("enough");
    time.settle().await;
    assert_eq!((ann.close_code(), ann.close_reason()), (Some(CloseCode(4001)), Some("enough")));
    assert_eq!(ann.closed().await, (CloseCode(4001), "enough".to_owned()));
}

async fn check_waiting_for_the_close(is_reading: bool) {
    let (_time, rooms, mut ann) = ann_in_the_lobby().await;
    if !is_reading {
        ann.stop_reading();
    }
    rooms.send(&RoomName::new("lobby").unwrap(), "news").await.unwrap();
    ann.send_text("enough");
    assert_eq!(ann.closed().await, (CloseCode(4001), "enough".to_owned()));
    assert_eq!(ann.receive_text().await, "news");
    assert_eq!(ann.receive().await, Received::Close(Some(CloseCode(4001))));
}

#[actix::test]
async fn a_test_can_wait_for_the_close_and_receives_the_frames_before_it_afterwards() {
    check_waiting_for_the_close(true).await;
}

#[actix::test]
async fn a_socket_that_reads_only_while_the_test_waits_receives_the_close() {
    check_waiting_for_the_close(false).await;
}

#[actix::test]
async fn a_socket_that_stops_reading_answers_no_pings_and_is_cut_off() {
    let (time, rooms, mut ann) = ann_in_the_lobby().await;
    let mut changes = Probe::new(&rooms);
    ann.stop_reading();
    time.advance(secs(50)).await;
    assert_eq!(changes.removed().await.user, Some(UserId::new("ann").unwrap()));
    assert_eq!((ann.receive().await, ann.close_code()), (Received::End, None));
    assert_eq!(ann.closed().await, (CloseCode::LOST, String::new()));
}

//! The Rust of the page *Testing your consumers*; a test compares the two.

use actix_web::{HttpRequest, http::StatusCode};
use presence::{CloseCode, Consumer, Error, Frame, RoomName, Socket, UserId, touch_presence};

struct Chat(RoomName);

impl Consumer for Chat {
    async fn connect(&mut self, socket: &mut Socket) -> presence::Result<()> {
        if socket.user().is_none() {
            return Err(Error::refuse(CloseCode::REFUSED, "log in first"));
        }
        socket.join(&self.0).await
    }

    #[touch_presence]
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> presence::Result<()> {
        let Frame::Text(text) = frame else { return Ok(()) };
        socket.rooms().send(&self.0, &*text).await
    }
}

/// The user of the cookie `login`.
async fn login(req: HttpRequest) -> presence::Result<Option<UserId>> {
    match req.cookie("login") {
        None => Ok(None),
        Some(cookie) if cookie.value() == "4f1d" => Ok(Some(UserId::new("ann")?)),
        Some(_) => Err(Error::deny(StatusCode::UNAUTHORIZED, "unknown login")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use presence::testing::{Probe, TestSocket};
    use presence::{Config, MemoryStore, NodeName, PruningSupervisor, Rooms};

    pub(super) fn lobby() -> RoomName {
        RoomName::new("lobby").unwrap()
    }

    pub(super) async fn rooms() -> Rooms {
        let config = Config::builder().room_threads(0).build().unwrap();
        let node = NodeName::new("test").unwrap();
        let rooms = Rooms::start(config, MemoryStore::default(), node);
        PruningSupervisor::spawn(&rooms);
        rooms.ready().await;
        rooms
    }

    /// A socket of this user, who is in the lobby and has received the first frame.
    pub(super) async fn member(rooms: &Rooms, user: &str) -> TestSocket {
        let upgrade = TestSocket::upgrade(rooms).user(Some(UserId::new(user).unwrap()));
        let mut socket = TestSocket::connect(upgrade, Chat(lobby())).await.expect("accepted");
        let first: serde_json::Value = socket.receive_json().await;
        assert_eq!(first["type"], "presence.state");
        socket
    }

    #[actix_web::test]
    async fn a_text_reaches_everybody_in_the_room() {
        let rooms = rooms().await;
        let mut changes = Probe::new(&rooms);
        let mut ann = member(&rooms, "ann").await;
        assert_eq!(changes.added().await.user, Some(UserId::new("ann").unwrap()));

        ann.send_text("hello");
        assert_eq!(ann.receive_text().await, "hello");
        ann.send_text("\"heartbeat\"");
        assert!(ann.receive_nothing().await);

        ann.disconnect(CloseCode::NORMAL).await;
        assert_eq!(changes.removed().await.user, Some(UserId::new("ann").unwrap()));
        assert!(changes.nothing().await);
    }
}

#[cfg(test)]
mod refusals {
    use super::{tests::*, *};
    use actix_web::cookie::Cookie;
    use presence::testing::{Received, TestSocket, upgrade_request};

    #[actix_web::test]
    async fn without_a_cookie_the_page_reads_a_close_code() {
        let upgrade = TestSocket::upgrade(&rooms().await).authenticate(login);
        // It is accepted, and then closed.
        let mut socket = TestSocket::connect(upgrade, Chat(lobby())).await.unwrap();
        assert_eq!(socket.closed().await, (CloseCode::REFUSED, "log in first".to_owned()));
        assert_eq!(socket.receive().await, Received::Close(Some(CloseCode::REFUSED)));
        assert_eq!(socket.receive().await, Received::End);
    }

    #[actix_web::test]
    async fn with_an_unknown_cookie_the_handshake_is_answered_401() {
        let upgrade = TestSocket::upgrade(&rooms().await).authenticate(login);
        let request = upgrade_request().uri("/ws/lobby").cookie(Cookie::new("login", "0000"));
        let chat = Chat(lobby());
        let refused = TestSocket::connect_with(upgrade, chat, request).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        assert_eq!(refused.reason, "unknown login");
    }

    #[actix_web::test]
    async fn with_the_cookie_of_ann_it_is_ann() {
        let rooms = rooms().await;
        let upgrade = TestSocket::upgrade(&rooms).authenticate(login);
        let request = upgrade_request().cookie(Cookie::new("login", "4f1d"));
        let chat = Chat(lobby());
        let _socket = TestSocket::connect_with(upgrade, chat, request).await.unwrap();
        assert_eq!(rooms.users(&lobby()).await.unwrap(), [UserId::new("ann").unwrap()]);
    }
}

#[cfg(test)]
mod silence {
    use super::{tests::*, *};
    use presence::testing::ManualTime;
    use std::time::Duration;

    #[actix_web::test]
    async fn a_silent_socket_is_closed_and_one_that_sends_heartbeats_stays() {
        let time = ManualTime::pause();
        let rooms = rooms().await;
        let (mut ann, mut bob) = (member(&rooms, "ann").await, member(&rooms, "bob").await);

        time.advance(Duration::from_secs(40)).await;
        ann.send_text("\"heartbeat\"");
        time.advance(Duration::from_secs(21)).await; // 61 s; `max_age` is 60 s
        assert_eq!(bob.closed().await, (CloseCode::STALE, "stale".to_owned())); // 4408
        assert_eq!(ann.close_code(), None);
        assert_eq!(rooms.users(&lobby()).await.unwrap(), [UserId::new("ann").unwrap()]);
    }
}

#[cfg(test)]
mod sending {
    use super::tests::*;
    use presence::{GroupName, testing::TestChannel};

    #[actix_web::test]
    async fn what_is_sent_to_a_group_reaches_its_followers() {
        let rooms = rooms().await;
        let feed = GroupName::new("feed").unwrap();
        let mut follower = TestChannel::open(&rooms).await;
        follower.join_group(&feed).unwrap();
        rooms.send_to_group(&feed, "news").await.unwrap(); // as the code under test would
        assert_eq!(follower.receive_text().await, "news");
    }
}

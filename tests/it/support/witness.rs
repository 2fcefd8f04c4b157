//! A socket that goes wrong, and another one in the same room that must notice nothing but its leave.

use super::frame::Raw;
use super::member::RoomClient;
use super::server::ChatServer;
use super::{BOUND, within};

/// The culprit Ann, and Bob, who looks on.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) server: ChatServer,
    pub(crate) bob: RoomClient,
}

impl Scene {
    pub(crate) async fn set(arguments: &[&str]) -> Self {
        let server = ChatServer::start(arguments).await;
        let bob = RoomClient::join(&server, "lobby", "bob").await;
        Self { server, bob }
    }

    /// Ann enters, in Bob's sight.
    pub(crate) async fn ann(&mut self) -> RoomClient {
        let ann = RoomClient::join(&self.server, "lobby", "ann").await;
        self.bob.sees_join("ann").await;
        ann
    }

    /// Ann sends these frames, receives the code and is cut off, and Bob sees her leave, and nothing else.
    pub(crate) async fn closes_with(&mut self, code: u16, frames: &[Raw]) {
        let bytes: Vec<_> = frames.iter().flat_map(Raw::encode).collect();
        self.bytes_close_with(code, &bytes).await;
    }

    pub(crate) async fn bytes_close_with(&mut self, code: u16, bytes: &[u8]) {
        let mut ann = self.ann().await;
        let shown = format!("{:02x?}", &bytes[..bytes.len().min(16)]);
        // The server may close before it has read all of it; what it then answers is what counts.
        drop(ann.socket.try_bytes(bytes).await);
        let told = within(BOUND, &format!("the answer to {shown}"), ann.socket.closing()).await;
        assert_eq!(told, Some(code), "the answer to {shown}");
        // Our half of the closing handshake, so that the server need not wait for it.
        drop(ann.socket.try_send(&Raw::close(code, b"")).await);
        ann.socket.drained().await;
        self.bob_sees_only_the_leave().await;
    }

    /// Bob's next news is Ann's leave, and his room works as before.
    pub(crate) async fn bob_sees_only_the_leave(&mut self) {
        self.bob.sees_leave("ann").await;
        self.bob.says("still here").await;
        self.bob.hears("bob", "still here").await;
    }
}

//! The load: clients that come, change, and go in every way, until the server dies under them.

use super::ledger::Ledger;
use crate::support::frame::{Raw, ReceivedFrame};
use crate::support::member::{RoomClient, Told, path};
use crate::support::roster::ClientRoster;
use crate::support::socket::HandshakeRequest;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;

/// One visit after another, until the connection ends.
pub(super) async fn visits(address: SocketAddr, ledger: Arc<Ledger>, rooms: Vec<String>, name: String, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for turn in 0.. {
        let room = random.choice(&rooms).expect("a room").clone();
        let anonymous = random.u8(..8) == 0;
        let visit = Visit { name: format!("{name}.{turn}"), room, anonymous, address, ledger: ledger.clone() };
        if visit.pay(&mut random).await.is_none() {
            return;
        }
    }
}

/// How a visit ends.
#[derive(Debug, Clone, Copy)]
enum VisitEnd {
    Stay,
    Command,
    Close,
    Reset,
}

struct Visit {
    name: String,
    room: String,
    anonymous: bool,
    address: SocketAddr,
    ledger: Arc<Ledger>,
}

impl Visit {
    /// Comes, sees, perhaps changes, and goes. `None`: the server is gone.
    async fn pay(&self, random: &mut fastrand::Rng) -> Option<()> {
        let way = *random.choice(
            [VisitEnd::Stay, VisitEnd::Command, VisitEnd::Command, VisitEnd::Close, VisitEnd::Reset].as_slice(),
        )?;
        self.ledger.asks_to_join(&self.name, &self.room, self.anonymous);
        let user = (!self.anonymous).then_some(&*self.name);
        let socket = HandshakeRequest::to(path(&self.room, user)).send(self.address).await.ok()?;
        let mut socket = match socket.answer_or_end().await? {
            Ok(socket) => socket,
            Err(refusal) => panic!("{} was refused: {refusal:?}", self.name),
        };
        let ReceivedFrame::Text(first) = ended(socket.next_frame().await)? else { panic!("a first frame") };
        let roster = ClientRoster::first(&serde_json::from_str(&first).unwrap());
        self.ledger.first_frame(&self.name, &roster);
        let mut member = RoomClient::with(socket, roster);
        for number in 1..=random.u64(..4) {
            self.update(&mut member, number).await?;
        }
        match way {
            VisitEnd::Stay => self.stay(&mut member).await,
            VisitEnd::Command => self.leave_by_command(&mut member).await,
            VisitEnd::Close => {
                self.ledger.asks_to_leave(&self.name);
                member.socket.try_send(&Raw::close(1000, b"")).await.ok()?;
                while self.hear(&mut member).await.is_some() {}
                Some(())
            }
            VisitEnd::Reset => {
                self.ledger.asks_to_leave(&self.name);
                member.socket.reset();
                Some(())
            }
        }
    }

    /// Changes again and again. An anonymous visitor, whose changes nobody sees, only reads.
    async fn stay(&self, member: &mut RoomClient) -> Option<()> {
        for number in 4.. {
            match self.anonymous {
                true => drop(self.hear(member).await?),
                false => self.update(member, number).await?,
            }
        }
        None
    }

    /// Changes its meta, and waits for the notice of that, unless it is anonymous.
    async fn update(&self, member: &mut RoomClient, number: u64) -> Option<()> {
        self.ledger.asks_to_update(&self.name, number);
        let update = json!({"type": "update", "meta": {"n": number}}).to_string();
        member.socket.try_send(&Raw::text(update)).await.ok()?;
        while !self.anonymous && member.roster.users[&self.name][&member.roster.me]["n"] != number {
            self.hear(member).await?;
        }
        Some(())
    }

    /// A text after the leave is answered when the leave is done, for commands are obeyed in order.
    async fn leave_by_command(&self, member: &mut RoomClient) -> Option<()> {
        self.ledger.asks_to_leave(&self.name);
        member.socket.try_send(&Raw::text(r#"{"type":"leave"}"#)).await.ok()?;
        member.socket.try_send(&Raw::text("am I here?")).await.ok()?;
        loop {
            if let Some(error) = self.hear(member).await? {
                assert_eq!(error["code"], "not_joined", "{}: {error}", self.name);
                self.ledger.is_out(&self.name);
                return Some(());
            }
        }
    }

    /// Reads a frame, and records its content. Returns the frame if it is an error; `None`: the connection has ended.
    async fn hear(&self, member: &mut RoomClient) -> Option<Option<Value>> {
        let ReceivedFrame::Text(text) = ended(member.socket.next_frame().await)? else { panic!("a text") };
        let frame: Value = serde_json::from_str(&text).unwrap();
        if frame["type"] == "error" {
            return Some(Some(frame));
        }
        if let Told::Diff(diff) = member.apply(&frame) {
            self.ledger.notice(&diff);
        }
        Some(None)
    }
}

fn ended(frame: ReceivedFrame) -> Option<ReceivedFrame> {
    match frame {
        ReceivedFrame::End | ReceivedFrame::Reset | ReceivedFrame::Close(Some(1000), _) => None,
        ReceivedFrame::Close(code, reason) => panic!("the server closed with {code:?} {reason:?}"),
        frame => Some(frame),
    }
}

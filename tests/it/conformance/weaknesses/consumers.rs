//! What handlers, messages and subscribers that go wrong do to others.

use crate::conformance::bed::{bed, bed_with, channel, room, secs, user};
use actix::{Actor, Context, Handler};
use presence::{
    CloseCode, Event, EventName, GroupName, JsonConsumer, JsonFrames, PresenceChanged, Result, Socket, Subscription,
    testing::{Received, TestSocket},
};
use std::cell::Cell;
use std::rc::Rc;

fn team() -> GroupName {
    GroupName::new("team").unwrap()
}

#[derive(serde::Serialize, serde::Deserialize)]
enum Told {
    #[serde(rename = "forward.message")]
    Forward { text: String },
}

/// A member of the lobby and of the team, who knows one message and one event.
struct Forwards;

impl JsonConsumer for Forwards {
    type Message = ();
    type Event = Told;

    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(&room("lobby")).await?;
        socket.join_group(&team())
    }

    async fn receive(&mut self, socket: &mut Socket, (): ()) -> Result<()> {
        socket.send("received").await
    }

    async fn event(&mut self, socket: &mut Socket, Told::Forward { text }: Told) -> Result<()> {
        socket.send(text).await
    }

    async fn disconnect(&mut self, socket: &mut Socket, _: CloseCode) -> Result<()> {
        socket.send("disconnected").await
    }
}

/// Never gets beyond its first event until it is let go.
struct Stuck {
    first: Option<tokio::sync::oneshot::Receiver<()>>,
    heard: Rc<Cell<usize>>,
}

impl Actor for Stuck {
    type Context = Context<Self>;
}

impl Handler<PresenceChanged> for Stuck {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: PresenceChanged, _: &mut Self::Context) -> Self::Result {
        let (first, heard) = (self.first.take(), self.heard.clone());
        Box::pin(async move {
            if let Some(first) = first {
                drop(first.await);
            }
            heard.set(heard.get() + 1);
        })
    }
}

// behaviour: W10 any-frame
#[actix_web::test]
async fn texts_bytes_and_typed_messages_touch_alike_and_a_heartbeat_is_seen_before_it_is_decoded() {
    let bed = bed().await;
    let mut ann = bed.member("ann").await;
    let upgrade = TestSocket::upgrade(&bed.rooms).user(Some(user("bob")));
    let mut bob = TestSocket::connect(upgrade, JsonFrames(Forwards)).await.unwrap();
    // Of each pair the first frame keeps Ann in, the second Bob.
    for turn in 0..4 {
        bed.leap(secs(40)).await;
        match turn {
            0 => ann.socket.send_binary(&b"bytes"[..]),
            1 => ann.socket.send_text(""),
            _ => ann.socket.send_text("\"heartbeat\""),
        }
        match turn {
            0 => bob.send_text("\"heartbeat\""),
            1 => bob.send_binary(&b"bytes"[..]),
            2 => bob.send_text("{"),
            _ => bob.send_text("null"),
        }
        bed.settle().await;
    }
    assert_eq!(bed.here().await, 2);
    assert_eq!(bob.receive_json::<serde_json::Value>().await["code"], "bad_message", "of the bytes");
    assert_eq!(bob.receive_json::<serde_json::Value>().await["code"], "bad_message", "of the brace");
    assert_eq!(bob.receive_text().await, "received", "of the message; the heartbeat was swallowed");
}

// behaviour: W11 removed-though-failing
#[actix_web::test]
async fn the_presence_goes_though_the_handler_panics() {
    let mut bed = bed().await;
    let mut ann = bed.member("ann").await;
    ann.socket.send_text("panic");
    ann.socket.receive().await;
    assert_eq!((bed.told().await, bed.told().await), ("+ann".into(), "-ann".into()));
}

// behaviour: W12 no-dead-sockets
#[actix_web::test]
async fn an_event_that_nobody_knows_kills_no_socket_and_a_handler_that_fails_leaves_no_row() {
    let mut bed = bed().await;
    let (mut ann, mut bob) = (bed.member("ann").await, bed.member("bob").await);
    assert_eq!([bed.told().await, bed.told().await], ["+ann", "+bob"]);
    let unknown = Event::new(EventName::new("no.such.handler").unwrap(), &()).unwrap();
    bed.rooms.send_event(&room("lobby"), unknown).unwrap();
    bed.quiet().await;
    ann.socket.send_text("fail");
    assert_eq!(ann.socket.receive().await, Received::Close(Some(CloseCode(1011))));
    assert_eq!(bed.told().await, "-ann");
    bob.socket.send_text("echo still here");
    assert_eq!(bob.socket.receive_text().await, "still here");
    assert_eq!(bed.here().await, 1);
}

// behaviour: W13 declared-only
#[actix_web::test]
async fn only_what_a_consumer_declares_can_be_reached_by_an_event() {
    let bed = bed().await;
    let mut ann = TestSocket::connect(TestSocket::upgrade(&bed.rooms), JsonFrames(Forwards)).await.unwrap();
    bed.settle().await;
    for name in ["receive", "disconnect", "connect", "send", "close", "websocket.receive", "_private"] {
        bed.rooms.send_event_to_group(&team(), Event::new(EventName::new(name).unwrap(), &()).unwrap()).unwrap();
    }
    // Another shape under a name that is known is no reason to die either.
    bed.rooms
        .send_event_to_group(&team(), Event::new(EventName::new("forward.message").unwrap(), &5).unwrap())
        .unwrap();
    bed.rooms.send_event_to_group(&team(), Event::typed(&Told::Forward { text: "hello".into() }).unwrap()).unwrap();
    assert_eq!(ann.receive_text().await, "hello");
    assert!(ann.receive_nothing().await);
}

// behaviour: W14 isolated-subscribers
#[actix_web::test]
async fn a_subscriber_that_panics_keeps_nobody_from_hearing() {
    struct Bad;
    impl Actor for Bad {
        type Context = Context<Self>;
    }
    impl Handler<presence::PresenceChanged> for Bad {
        type Result = ();
        fn handle(&mut self, _: presence::PresenceChanged, _: &mut Self::Context) {
            panic!("told to panic");
        }
    }
    let mut bed = bed().await;
    let arbiter = actix::Arbiter::new();
    let bad = Bad::start_in_arbiter(&arbiter.handle(), |_| Bad);
    bed.rooms.subscribe(None, bad.recipient());
    bed.add("1", "ann").await;
    bed.add("2", "bob").await;
    assert_eq!((bed.told().await, bed.told().await), ("+ann".into(), "+bob".into()));
}

// behaviour: W14 hanging-subscriber
#[actix_web::test]
async fn a_subscriber_that_hangs_delays_nobody_and_learns_how_much_it_missed() {
    let mut bed = bed().await;
    let mut hanging = bed.rooms.changes();
    let stuck = bed.rooms.clone();
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    let actor = Stuck { first: Some(told), heard: Rc::default() };
    let heard = actor.heard.clone();
    stuck.subscribe(None, actor.start().recipient());
    let turns = Subscription::CAPACITY / 2 + 100;
    for turn in 0..turns {
        bed.add("c", "ann").await;
        bed.rooms.remove(&room("lobby"), &channel("c")).await.unwrap();
        assert_eq!([bed.told().await, bed.told().await], ["+ann", "-ann"], "turn {turn}");
    }
    assert_eq!(heard.get(), 0, "the actor hangs in its first event");
    drop(tell);
    bed.settle().await;
    bed.leap(secs(11)).await;
    assert!(heard.get() > 0, "and goes on when it can");
    let first = hanging.next().await.unwrap();
    assert_eq!(first.missed, 2 * turns as u64 - Subscription::CAPACITY as u64);
}

// behaviour: W15 after-the-commit
#[actix_web::test]
async fn nothing_is_told_before_it_is_committed() {
    let mut bed = bed().await;
    bed.store.hang();
    let rooms = bed.rooms.clone();
    let add = actix_web::rt::spawn(async move { rooms.add(&room("lobby"), &channel("c"), None).await.map(drop) });
    bed.quiet().await;
    bed.store.release();
    add.await.unwrap().unwrap();
    assert_eq!(bed.told().await, "+?");
}

// behaviour: W17 membership-lasts
// behaviour: 7 expiry
#[actix_web::test]
async fn a_membership_lasts_as_long_as_the_socket() {
    // There a membership ends after 24 hours, a message and with it its channel after 60 s, and the 101st message is lost.
    let bed = bed_with(|config| config.max_age(secs(48 * 3600)).lease(secs(24 * 3600))).await;
    let mut ann = bed.member("ann").await;
    tokio::time::advance(secs(25 * 3600)).await;
    bed.settle().await;
    for n in 0..130 {
        bed.rooms.send(&room("lobby"), n.to_string()).await.unwrap();
    }
    for n in 0..130 {
        assert_eq!(ann.socket.receive_text().await, n.to_string());
    }
}

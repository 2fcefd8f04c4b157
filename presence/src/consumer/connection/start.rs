//! Starts a socket: its connection's actor, and the task of its consumer.

use std::{
    cell::Cell,
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering},
};

use actix::{AsyncContext, Context};
use actix_web::{HttpRequest, http::header::HeaderMap, web::Payload};
use tokio::sync::oneshot;
use tracing::warn;

use crate::{
    CloseCode, Consumer, Result, ResumeToken, Rooms, Socket,
    consumer::{
        handshake::Handshake,
        inbox::Inbox,
        kill::KillSwitch,
        line::Line,
        rates::Rates,
        reading::{Reading, ReadingEnd},
        run::{Accepted, run},
        task::SocketTask,
        transport::Inbound,
    },
    delivery::{Bounds, HubSocket, Outbound, Outbox, Owner, ToConnection, Touch, Writing},
    name::UserId,
    rooms::as_consumer_of,
};

use super::{Client, Connection, Phase};

/// Starts a socket that came by this request. `decided` receives what the consumer decides. Returns the body of the response.
pub(crate) fn start<C: Consumer>(
    rooms: &Rooms,
    req: &HttpRequest,
    payload: Payload,
    user: Option<UserId>,
    resume: Option<ResumeToken>,
    consumer: C,
    decided: oneshot::Sender<Result<Accepted>>,
) -> Outbound {
    let config = rooms.config();
    let kill = req.conn_data::<KillSwitch>().cloned().unwrap_or_else(without_kill_switch);
    let hub = rooms.hubs().here();
    let line = Line::new(kill.clone(), payload, hub.filling.clone());
    let touch = Touch::new(rooms.this_node().now());
    let channel = rooms.channels().open(rooms.hubs().new_channel(&hub.hub), touch.clone(), hub.hub.clone());
    channel.set_resume_token(resume);
    let seen = Rc::new(Cell::new(rooms.this_node().now()));
    let inbox = Rc::new(Inbox::new(config.inbox_frames(), touch));
    let bounds = Bounds {
        frames: config.outbox_frames(),
        bytes: config.outbox_bytes(),
        write_timeout: config.write_timeout(),
        patience: config.send_patience(),
        rate: config.steady_rate(),
    };
    let outbox = Outbox::new(bounds, rooms.this_node().clock.clone(), hub.filling.clone(), hub.hub.clone());
    let limits = (config.max_frame_bytes(), config.max_message_bytes());
    let reading_end = ReadingEnd::default();
    let inbound = Inbound::new(line.clone(), limits, rooms.this_node().clock.clone(), Rc::clone(&seen));
    let context = Context::new();
    let connection = context.address().recipient();
    let rates = Rc::new(Rates::new(rooms.clone(), outbox.clone(), connection.clone()));
    let socket = Socket {
        rooms: rooms.clone(),
        rates: rates.clone(),
        channel: channel.clone(),
        user: user.clone(),
        handshake: Handshake::of(req),
        outbox: outbox.clone(),
        sockets: hub.sockets.clone(),
        connection: connection.clone(),
        arrived: None,
        subprotocol: None,
        headers: HeaderMap::new(),
    };
    rooms.hubs().sockets.send_modify(|open| *open += 1);
    context.run(Connection {
        rooms: rooms.clone(),
        hub: hub.clone(),
        outbox: outbox.clone(),
        inbox: inbox.clone(),
        channel: channel.clone(),
        kill,
        seen,
        reading_end: reading_end.clone(),
        client: Client { user: user.clone(), peer: req.peer_addr() },
        phase: Phase::Connecting,
        early_close: None,
        ping: None,
        consumer_done: false,
        body_gone: false,
        is_reset: false,
    });
    outbox.set_owner(Owner { channel: channel.name().clone(), connection: connection.clone(), kernel: Box::new(line) });
    let hub_socket = HubSocket { outbox: outbox.clone(), connection: connection.clone(), user };
    hub.sockets.borrow_mut().enter(channel.name().clone(), hub_socket);
    if rooms.is_shutting_down() {
        // The shutdown may have closed all sockets of the hub before this one was among them.
        connection.do_send(ToConnection::Close { code: CloseCode::RESTARTING, reason: "the node is restarting" });
    }
    let reading = Reading {
        inbound,
        inbox: inbox.clone(),
        outbox: outbox.clone(),
        rates,
        connection: connection.clone(),
        end: reading_end,
    };
    let consumer = as_consumer_of(channel.name().clone(), run(consumer, socket, inbox.clone(), decided));
    actix_web::rt::spawn(SocketTask::new(reading.run(), consumer, Writing(outbox.clone()), inbox));
    Outbound { outbox, connection }
}

fn without_kill_switch() -> KillSwitch {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        warn!(
            "`HttpServer::with_presence(&rooms)`, or `on_connect(presence::on_connect)`, is missing: small frames wait for one another, and a client that does not read may keep its TCP connection"
        );
    }
    KillSwitch::default()
}

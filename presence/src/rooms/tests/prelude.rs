//! The names that most tests of rooms use.

pub(crate) use futures_util::{
    FutureExt,
    future::{join, join_all},
};
pub(crate) use serde_json::{Value, json};
pub(crate) use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
pub(crate) use tokio::time::Instant;

pub(crate) use crate::rooms::tests::support::{
    ClientView, FakeClient, Log, NONE, RecordingStore, Span, TestNode, TransactionKind, WriterCall, advance, alive,
    all_join, channel, config, leap, lobby, ms, new_node, node, node_on, node_with, nodes, online_events, own_node_on,
    pass, published, quick, room, secs, settle, short, starting_node_on, unsupervised_node_on, user,
};
pub(crate) use crate::{
    Close, CloseCode, Config, Consumer, Counts, Error, Event, Frame, JoinOptions, Member, Meta, Outgoing, Presence,
    PresenceChange, PresenceChanged, PruningSupervisor, Result, ResumeToken, Rooms, Socket,
    clock::Clock,
    config::{ConfigBuilder, Durability, OnStale},
    delivery::{PIECE, ToConnection, ToHub},
    name::{ChannelName, EventName, GroupName, NodeId, NodeName, PresenceId, RoomName, UserId},
    room::{FaultPoint, ToRoom},
    signal::Subscription,
    store::{Attempt, ClearMode, MemoryStore, NodeStore, RequestStore, RoomStore, RoomWrites, Write},
    testing::{Received, TestSocket, fault::panic_room, store::FaultyStore},
};

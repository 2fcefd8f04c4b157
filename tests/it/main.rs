//! What a user sees: the chat server as a process, from outside, over real sockets and in a real browser.
//!
//! The law is the wire contract of `examples/chat`. Each module takes one part of it; each test is named after the
//! guarantee that it would miss. `support` holds the clients and the server's handle.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod support;

mod browser;
mod client;
mod closing;
mod commands;
mod conformance;
mod crowd;
mod cutoffs;
mod diff;
mod docs;
mod endings;
mod events;
mod faults;
mod frames_sent;
mod frozen;
mod handshake;
mod inproc;
mod layers;
mod limits;
mod list;
mod liveness;
mod names;
mod open_files;
mod outage;
mod protocol;
mod proxies;
mod recovery;
mod restart;
mod resume;
mod slow;
mod standstill;
mod startup;

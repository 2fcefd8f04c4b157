//! Its weaknesses, which are not ours: a test for each. Those that need real sockets, threads or processes are in
//! `inproc::conformance` and in the modules about the chat.

mod consumers;
mod presences;
mod project;

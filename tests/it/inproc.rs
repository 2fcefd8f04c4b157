//! The library in this very process, with consumers of the tests' own: what the chat cannot show.
//!
//! The server is a real one, on a real port, with real sockets; only the consumer behind it does what a test requests,
//! and reports to the test what it did. So these tests know what has happened, and wait for nothing else.

mod clients;
mod conformance;
mod connecting;
mod crowd;
mod echo;
mod ending;
mod faulty;
mod host;
mod leaks;
mod macros;
mod puppet;
mod slowness;
mod speaking;
mod stuck;
mod taking;

//! What the benchmarks of rooms share: a server in this process, and clients on real sockets of this machine.

pub(crate) mod client;
pub(crate) mod crowd;
pub(crate) mod server;

//! Clients that do nothing.

use std::time::Duration;

use super::{Bed, Figure, less};

/// Members of a room.
const ROOM: usize = 10;
/// Handshakes under way.
const AT_ONCE: usize = 32;
/// For how long the last client has been there when memory is read: what a server frees in the first seconds of a connection does not count.
const IDLE: Duration = Duration::from_secs(3);

/// `empty` is the resident memory of the server before the first client, in bytes.
pub(super) fn idle(bed: &mut Bed<'_>, empty: u64) -> Result<Vec<Figure>, String> {
    let clients = bed.size.of(2000, 20);
    bed.fill(clients, clients / ROOM, AT_ONCE)?;
    bed.load.settle()?;
    bed.load.turns(if bed.size.tiny { bed.size.seconds } else { IDLE })?;
    let full = bed.server.resident()?;
    Ok(vec![
        less("RSS per idle socket, KB", full.saturating_sub(empty) as f64 / clients as f64 / 1e3),
        less("RSS of the empty server, MB", empty as f64 / 1e6),
    ])
}

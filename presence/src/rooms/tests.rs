//! What rooms promise, in one process: everything lives on the test's own thread, and time stands still until a test
//! waits for something that only time brings. `// behaviour:` names what `tests/conformance.txt` says about the ancestor.

mod adding;
mod alternating;
mod bench;
mod commanding;
mod committing;
mod desk;
mod emptying;
mod ending;
mod faults;
mod flooding;
mod following;
mod heartbeats;
mod joining;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod large;
mod leases;
mod logging;
mod making_room;
mod nodes;
mod notices;
mod online;
mod outage;
mod owing;
mod places;
mod pruning;
mod racing;
mod reaching;
mod reading;
mod removing;
mod resuming;
mod returning;
mod signals;
mod signing_in;
mod slow_lines;
mod slow_readers;
mod standing_still;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod taken;
mod threads;
mod together;
mod touching;
mod under_way;
mod unread;

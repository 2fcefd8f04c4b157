//! What rooms guarantee within one process. Everything runs on the thread of the test, and time stands still until a test waits for
//! something that only time brings. Each `// behaviour:` names a statement of `tests/conformance.txt` about django-channels-presence.

mod adding;
mod bulk_events;
mod catching_up;
mod commanding;
mod committing;
mod comparing;
mod concurrent_callers;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod databases;
mod dead_nodes;
mod emptying;
mod failing_on_commits;
mod faults;
mod first_frames;
mod following;
mod handshakes;
mod heartbeats;
mod join_limits;
mod joining;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod lanes;
mod leases;
mod logging;
mod metas;
mod nodes;
mod notices;
mod online;
mod outage;
mod prelude;
mod pruning;
mod rates;
mod reading;
mod removal_order;
mod removing;
mod resuming;
mod sending;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod set_back;
mod several_lanes;
mod shutdown;
mod signals;
mod signing_in;
mod slow_lines;
mod slow_readers;
mod standstills;
mod store_threads;
mod support;
mod taking_over;
mod touching;
mod writing;

//! What django-channels-presence does and its users rely on, one test for each statement, and one for each of its weaknesses.
//!
//! The comment above a test names the statement of `tests/conformance.txt` that it is about. No test needs a network, and
//! time stands still unless a test lets it pass.

mod add;
mod bed;
mod channels;
mod countdown;
mod decorators;
mod groups;
mod json;
mod kit;
mod prune;
mod remove;
mod signal;
mod tasks;
mod touch_leave;
mod users;
mod weaknesses;

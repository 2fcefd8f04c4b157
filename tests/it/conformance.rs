//! What users of django-channels-presence rely on, and its weaknesses, where no other test shows it.
//!
//! The comment above a test names the statements of `tests/conformance.txt` that it is about; most of them are shown by tests
//! elsewhere. No test here needs a network, and time stands still unless a test lets it pass.

mod bed;
mod channels;
mod countdown;
mod groups;
mod json;
mod kit;
mod rooms;
mod versions;

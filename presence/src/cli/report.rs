//! What a command prints.

use serde::Serialize;

use super::table::Medium;

/// The result of a command, as JSON for programs and as text for people.
pub(super) trait Report: Serialize {
    fn text(&self, medium: Medium) -> String;
}

//! What is sent to consumers rather than to their clients.

use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::name::EventName;

/// A message to the consumers of a room or of one channel: each gets it in [`Consumer::event`](crate::Consumer::event), and
/// decides what its client hears of it.
///
/// As a channel-layer message of django-channels, with its name as the `type`.
#[derive(Debug, Clone)]
pub struct Event {
    name: EventName,
    payload: Arc<RawValue>,
}

impl Event {
    /// Makes an event of `payload`, which is serialized once for all who get it.
    ///
    /// # Errors
    /// That of `serde_json`, if `payload` does not serialize.
    pub fn new(name: EventName, payload: &impl Serialize) -> serde_json::Result<Self> {
        Ok(Self { name, payload: Arc::from(serde_json::value::to_raw_value(payload)?) })
    }

    /// What kind of event it is.
    #[must_use]
    pub const fn name(&self) -> &EventName {
        &self.name
    }

    /// The payload as JSON text.
    #[must_use]
    pub fn json(&self) -> &str {
        self.payload.get()
    }

    /// The payload as a value.
    ///
    /// # Errors
    /// That of `serde_json`, if the payload is not a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(self.payload.get())
    }
}

//! Events, which are sent to consumers and not to their clients.

use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::name::EventName;

/// A message to the consumers of a room, a group, a user or one socket. Each receives it in [`Consumer::event`](crate::Consumer::event),
/// and decides what it sends to its client. A clone shares the payload.
///
/// It corresponds to a channel-layer message of django-channels with the name as its `type`.
///
/// ```
/// use presence::{Event, EventName};
///
/// let event = Event::new(EventName::new("score")?, &[3, 1])?;
/// assert_eq!((event.name().as_str(), event.json()), ("score", "[3,1]"));
/// assert_eq!(event.decode::<Vec<u8>>()?, [3, 1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Event {
    name: EventName,
    payload: Arc<RawValue>,
}

impl Event {
    /// Makes an event. The payload is serialized once, however many consumers receive it.
    ///
    /// # Errors
    /// The error of `serde_json` if `payload` cannot be serialized.
    pub fn new(name: EventName, payload: &impl Serialize) -> serde_json::Result<Self> {
        Ok(Self { name, payload: Arc::from(serde_json::value::to_raw_value(payload)?) })
    }

    /// The name, by which consumers distinguish events.
    #[must_use]
    pub const fn name(&self) -> &EventName {
        &self.name
    }

    /// The payload as JSON text.
    #[must_use]
    pub fn json(&self) -> &str {
        self.payload.get()
    }

    /// The payload as a `T`.
    ///
    /// # Errors
    /// The error of `serde_json` if the payload does not have the form of a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(self.payload.get())
    }

    /// Makes an event from a variant of an enum. The name of the variant becomes the name of the event, and its fields become the payload.
    ///
    /// ```
    /// use presence::Event;
    ///
    /// #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    /// enum Game {
    ///     Score { home: u8, away: u8 },
    /// }
    ///
    /// let event = Event::typed(&Game::Score { home: 3, away: 1 })?;
    /// assert_eq!(event.name().as_str(), "Score");
    /// assert_eq!(event.decode_typed::<Game>()?, Game::Score { home: 3, away: 1 });
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    ///
    /// # Errors
    /// An error of `serde_json` if `event` is not serialized as an externally tagged enum (the default form of `serde`), or if the name of the
    /// variant is not a valid [`EventName`].
    pub fn typed(event: &impl Serialize) -> serde_json::Result<Self> {
        use serde::ser::Error;
        let (name, payload) = match serde_json::to_value(event)? {
            serde_json::Value::String(name) => (name, serde_json::Value::Null),
            serde_json::Value::Object(fields) if fields.len() == 1 => fields.into_iter().next().expect("it has one"),
            _ => return Err(serde_json::Error::custom("an event is a variant of an enum")),
        };
        Self::new(EventName::new(name).map_err(serde_json::Error::custom)?, &payload)
    }

    /// The event as a variant of an enum: the reverse of [`typed`](Self::typed).
    ///
    /// # Errors
    /// The error of `serde_json` if the enum has no variant of this name, or the variant has other fields.
    pub fn decode_typed<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        let name = serde_json::to_string(&self.name)?;
        serde_json::from_str(&format!("{{{name}:{}}}", self.payload.get()))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum TestEvent {
        Quiet,
        #[serde(rename = "chat.said")]
        Said {
            text: String,
        },
        Count(u32),
    }

    #[test]
    fn a_typed_event_comes_back_as_the_variant_that_it_was() {
        for event in [TestEvent::Quiet, TestEvent::Said { text: "\"hi\"".into() }, TestEvent::Count(5)] {
            assert_eq!(Event::typed(&event).unwrap().decode_typed::<TestEvent>().unwrap(), event);
        }
        assert_eq!(Event::typed(&TestEvent::Said { text: String::new() }).unwrap().name().as_str(), "chat.said");
    }

    #[test]
    fn an_unknown_event_and_one_of_another_shape_do_not_decode() {
        let event = |name, payload: &serde_json::Value| Event::new(EventName::new(name).unwrap(), payload).unwrap();
        assert!(event("Loud", &serde_json::Value::Null).decode_typed::<TestEvent>().is_err());
        assert!(event("Count", &serde_json::json!("five")).decode_typed::<TestEvent>().is_err());
    }

    #[test]
    fn only_a_variant_of_an_enum_is_a_typed_event() {
        assert!(Event::typed(&5).is_err());
        assert!(Event::typed(&serde_json::json!({"a": 1, "b": 2})).is_err());
    }
}

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

    /// Makes an event of a variant of an enum: the variant's name becomes the event's, its fields the payload.
    ///
    /// # Errors
    /// That of `serde_json`, if `event` does not serialize as an externally tagged enum (`serde`'s default form), or the
    /// variant's name is no [`EventName`].
    pub fn typed(event: &impl Serialize) -> serde_json::Result<Self> {
        use serde::ser::Error;
        let (name, payload) = match serde_json::to_value(event)? {
            serde_json::Value::String(name) => (name, serde_json::Value::Null),
            serde_json::Value::Object(fields) if fields.len() == 1 => fields.into_iter().next().expect("it has one"),
            _ => return Err(serde_json::Error::custom("an event is a variant of an enum")),
        };
        Self::new(EventName::new(name).map_err(serde_json::Error::custom)?, &payload)
    }

    /// The event as a variant of an enum, as made by [`typed`](Self::typed).
    ///
    /// # Errors
    /// That of `serde_json`, if the enum has no such variant, or it has other fields.
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
    enum Told {
        Quiet,
        #[serde(rename = "chat.said")]
        Said {
            text: String,
        },
        Count(u32),
    }

    #[test]
    fn a_typed_event_comes_back_as_the_variant_that_it_was() {
        for told in [Told::Quiet, Told::Said { text: "\"hi\"".into() }, Told::Count(5)] {
            assert_eq!(Event::typed(&told).unwrap().decode_typed::<Told>().unwrap(), told);
        }
        assert_eq!(Event::typed(&Told::Said { text: String::new() }).unwrap().name().as_str(), "chat.said");
    }

    #[test]
    fn an_unknown_event_and_one_of_another_shape_do_not_decode() {
        let event = |name, payload: &serde_json::Value| Event::new(EventName::new(name).unwrap(), payload).unwrap();
        assert!(event("Loud", &serde_json::Value::Null).decode_typed::<Told>().is_err());
        assert!(event("Count", &serde_json::json!("five")).decode_typed::<Told>().is_err());
    }

    #[test]
    fn only_a_variant_of_an_enum_is_a_typed_event() {
        assert!(Event::typed(&5).is_err());
        assert!(Event::typed(&serde_json::json!({"a": 1, "b": 2})).is_err());
    }
}

//! What a client says of itself.

use std::{fmt, sync::Arc};

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

/// The largest meta, in bytes of JSON as given.
pub const MAX_META_BYTES: usize = 4096;

/// A JSON object of at most [`MAX_META_BYTES`] bytes that goes with a presence: a status, a typing mark, a cursor.
///
/// Two are equal if they hold the same values, however they are spelt. It is passed on as it was given.
#[derive(Clone)]
pub struct Meta(Option<Arc<RawValue>>);

/// Why a text is not a [`Meta`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetaError {
    /// It is longer than [`MAX_META_BYTES`].
    #[error("a meta has at most {MAX_META_BYTES} bytes of JSON, not {bytes}")]
    TooLarge {
        /// Its length in bytes.
        bytes: usize,
    },
    /// It is JSON, but not an object.
    #[error("a meta is a JSON object")]
    NotAnObject,
    /// It is not JSON, or the value given does not serialize.
    #[error("a meta is JSON")]
    Json(#[source] serde_json::Error),
}

impl Meta {
    /// Takes a JSON object as it stands.
    ///
    /// # Errors
    /// [`MetaError`], which says the rule that `json` breaks.
    pub fn from_json(json: &str) -> Result<Self, MetaError> {
        let json = json.trim_ascii();
        if json.len() > MAX_META_BYTES {
            return Err(MetaError::TooLarge { bytes: json.len() });
        }
        match serde_json::from_str(json).map_err(MetaError::Json)? {
            Value::Object(object) if object.is_empty() => Ok(Self(None)),
            Value::Object(_) => {
                let raw = RawValue::from_string(json.to_owned()).map_err(MetaError::Json)?;
                Ok(Self(Some(Arc::from(raw))))
            }
            _ => Err(MetaError::NotAnObject),
        }
    }

    /// Serializes `value`, which must come out as a JSON object.
    ///
    /// # Errors
    /// [`MetaError`], which says the rule that the result breaks.
    pub fn new(value: &impl Serialize) -> Result<Self, MetaError> {
        Self::from_json(&serde_json::to_string(value).map_err(MetaError::Json)?)
    }

    /// The JSON text of the object.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_ref().map_or("{}", |raw| raw.get())
    }

    /// Whether the object has no keys.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The object, parsed.
    #[must_use]
    pub fn to_object(&self) -> Map<String, Value> {
        serde_json::from_str(self.as_str()).expect("checked when it was made")
    }
}

impl Default for Meta {
    /// The empty object.
    fn default() -> Self {
        Self(None)
    }
}

impl PartialEq for Meta {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
            || (!self.is_empty() && !other.is_empty() && self.to_object() == other.to_object())
    }
}

impl Eq for Meta {}

impl fmt::Debug for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Meta {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(raw) => raw.serialize(serializer),
            None => Map::new().serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_is_an_object_of_at_most_4096_bytes_as_given() {
        assert!(matches!(Meta::from_json("[]"), Err(MetaError::NotAnObject)));
        assert!(matches!(Meta::from_json("{"), Err(MetaError::Json(_))));
        let fits = format!(r#"{{"a":"{}"}}"#, "x".repeat(4096 - 8));
        assert!(Meta::from_json(&fits).is_ok());
        let large = fits.replace("\"a\"", "\"ab\"");
        assert!(matches!(Meta::from_json(&large), Err(MetaError::TooLarge { bytes: 4097 })));
    }

    #[test]
    fn metas_are_equal_by_value_and_passed_on_as_given() {
        let spaced = Meta::from_json(r#" { "b" : 1, "a" : 2 } "#).unwrap();
        assert_eq!(spaced, Meta::from_json(r#"{"a":2,"b":1}"#).unwrap());
        assert_eq!(serde_json::to_string(&spaced).unwrap(), r#"{ "b" : 1, "a" : 2 }"#);
        assert_eq!(Meta::from_json("{ }").unwrap(), Meta::default());
        assert_eq!(serde_json::to_string(&Meta::default()).unwrap(), "{}");
    }

    #[test]
    fn a_meta_nested_without_end_is_an_error_and_not_a_stack_overflow() {
        let deep = format!("{}{}", r#"{"a":"#.repeat(800), "1");
        assert!(matches!(Meta::from_json(&deep), Err(MetaError::Json(_))));
    }
}

//! The meta of a presence.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value, value::RawValue};

/// The largest meta, in bytes of JSON as given.
pub const MAX_META_BYTES: usize = 4096;

/// How many objects and arrays of a meta may be nested, including the meta itself.
///
/// A meta is part of a frame that all members receive, and JSON parsers limit the nesting of the whole frame: 64 in .NET, 100 in Ruby,
/// 128 in `serde_json`. A frame has five levels around a meta.
pub const MAX_META_DEPTH: usize = 32;

/// A JSON object that belongs to a presence: a status, a typing mark, a cursor. It has at most [`MAX_META_BYTES`] bytes, and is nested
/// at most [`MAX_META_DEPTH`] deep.
///
/// Its text is sent unchanged, and two metas are equal if their texts are. So clients see each change, even of the digits of a number
/// or the order of keys. Space around the object is not part of it, and the empty object is always `{}`.
///
/// Create it [from a text](Self::from_json), from [any value that serializes](Self::new), or from a [`Value`] or [`Map`] of `serde_json`.
/// It is `Deserialize`, so that messages of clients can contain one:
///
/// ```
/// use presence::Meta;
/// use serde::Deserialize;
/// use serde_json::json;
///
/// #[derive(Deserialize)]
/// #[serde(tag = "type", rename_all = "snake_case")]
/// enum StatusMessage {
///     Status { meta: Meta },
/// }
///
/// let StatusMessage::Status { meta } = serde_json::from_str(r#"{"type":"status","meta":{"busy":true}}"#)?;
/// assert_eq!(meta, Meta::try_from(json!({ "busy": true }))?);
/// assert_eq!(meta.to_object()["busy"], true);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Meta(Option<Arc<RawValue>>);

/// Why a text is not a [`Meta`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetaError {
    /// The text is longer than [`MAX_META_BYTES`].
    #[error("a meta has at most {MAX_META_BYTES} bytes of JSON, not {bytes}")]
    TooLarge {
        /// Its length in bytes.
        bytes: usize,
    },
    /// Its objects and arrays are nested deeper than [`MAX_META_DEPTH`].
    #[error("a meta is nested at most {MAX_META_DEPTH} deep, not {depth}")]
    TooDeep {
        /// How deep they are nested.
        depth: usize,
    },
    /// The text is JSON, but not an object.
    #[error("a meta is a JSON object")]
    NotAnObject,
    /// The text is not JSON, or the value cannot be serialized.
    #[error("a meta is JSON")]
    Json(#[source] serde_json::Error),
}

impl Meta {
    /// Creates a meta from the text of a JSON object.
    ///
    /// # Errors
    /// [`MetaError`] with the rule that `json` violates.
    pub fn from_json(json: &str) -> Result<Self, MetaError> {
        let json = json.trim_ascii();
        if json.len() > MAX_META_BYTES {
            return Err(MetaError::TooLarge { bytes: json.len() });
        }
        let depth = depth(json);
        if depth > MAX_META_DEPTH {
            return Err(MetaError::TooDeep { depth });
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

    /// Creates a meta from a value that serializes as a JSON object.
    ///
    /// ```
    /// use presence::Meta;
    ///
    /// #[derive(serde::Serialize)]
    /// struct Status {
    ///     busy: bool,
    /// }
    ///
    /// let meta = Meta::new(&Status { busy: true })?;
    /// assert_eq!(meta.as_str(), r#"{"busy":true}"#);
    /// assert_eq!(meta.to_object()["busy"], true);
    /// assert!(Meta::new(&5).is_err()); // only an object is a meta
    /// # Ok::<(), presence::MetaError>(())
    /// ```
    ///
    /// # Errors
    /// [`MetaError`] with the rule that the result violates.
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

    /// The parsed object. Digits of a number beyond the precision of a double are lost here, but not in [`as_str`](Self::as_str).
    #[must_use]
    pub fn to_object(&self) -> Map<String, Value> {
        serde_json::from_str(self.as_str()).expect("checked when the meta was created")
    }
}

impl Default for Meta {
    /// The empty object.
    fn default() -> Self {
        Self(None)
    }
}

impl FromStr for Meta {
    type Err = MetaError;
    fn from_str(json: &str) -> Result<Self, MetaError> {
        Self::from_json(json)
    }
}

impl TryFrom<Value> for Meta {
    type Error = MetaError;
    fn try_from(value: Value) -> Result<Self, MetaError> {
        Self::new(&value)
    }
}

impl TryFrom<Map<String, Value>> for Meta {
    type Error = MetaError;
    fn try_from(object: Map<String, Value>) -> Result<Self, MetaError> {
        Self::new(&object)
    }
}

/// Reads an object of any format and serializes it again: numbers have the precision of a double, and only the last of several equal
/// keys is kept. To keep the original text, deserialize a `Box<RawValue>` and call [`Meta::from_json`].
impl<'de> Deserialize<'de> for Meta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(Map::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// How deep objects and arrays are nested in a JSON text. The result is meaningless if the text is not JSON.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

impl PartialEq for Meta {
    /// Compares the texts. Parsed numbers would be equal if they differ only beyond the precision of a double.
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
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
    fn metas_are_equal_if_their_texts_are() {
        let meta = |json: &str| Meta::from_json(json).unwrap();
        assert_eq!(serde_json::to_string(&meta(r#" { "b" : 1, "a" : 2 } "#)).unwrap(), r#"{ "b" : 1, "a" : 2 }"#);
        assert_eq!(meta(r#" {"a":1} "#), meta(r#"{"a":1}"#), "space around the object is not part of it");
        let differ = [
            (r#"{"n":0.1}"#, r#"{"n":0.10000000000000000001}"#),
            (r#"{"n":9007199254740993.0}"#, r#"{"n":9007199254740992.0}"#),
            (r#"{"n":100000000000000000000000}"#, r#"{"n":100000000000000000000001}"#),
            (r#"{"n":0.0}"#, r#"{"n":-0.0}"#),
            (r#"{"n":1,"n":2}"#, r#"{"n":2}"#),
            (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#),
            (r#"{"a":"é"}"#, r#"{"a":"\u00e9"}"#),
        ];
        for (one, other) in differ {
            assert_ne!(meta(one), meta(other));
        }
        assert_eq!(meta("{ }"), Meta::default());
        assert_eq!(serde_json::to_string(&meta("{ }")).unwrap(), "{}");
    }

    #[test]
    fn the_same_rules_apply_to_a_meta_from_a_value_a_map_or_a_message() {
        #[derive(Debug, Deserialize)]
        #[serde(tag = "type", rename_all = "snake_case")]
        enum StatusMessage {
            Status { meta: Meta },
        }
        let read = |meta: &str| {
            let message = format!(r#"{{"type":"status","meta":{meta}}}"#);
            serde_json::from_str(&message).map(|StatusMessage::Status { meta }| meta)
        };
        let meta = read(r#"{"busy":true,"at":[1,2]}"#).unwrap();
        let object = meta.to_object();
        assert_eq!((object["busy"].clone(), object["at"].clone()), (Value::Bool(true), serde_json::json!([1, 2])));
        assert_eq!(meta, Meta::try_from(object.clone()).unwrap());
        assert_eq!(meta, Meta::try_from(Value::Object(object)).unwrap());
        assert_eq!("{}".parse::<Meta>().unwrap(), read("{}").unwrap());
        let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(4096));
        let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(32), "]".repeat(32));
        for (bad, why) in [("[]", "expected a map"), (&large, "at most 4096 bytes"), (&deep, "nested at most 32")] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(matches!(Meta::try_from(serde_json::json!([1])), Err(MetaError::NotAnObject)));
    }

    #[test]
    fn a_meta_is_nested_at_most_32_deep() {
        let nested = |depth: usize, open: &str, close: &str| {
            format!("{{\"a\":{}1{}}}", open.repeat(depth - 1), close.repeat(depth - 1))
        };
        for (open, close) in [(r#"{"a":"#, "}"), ("[", "]")] {
            assert!(Meta::from_json(&nested(32, open, close)).is_ok());
            let deeper = Meta::from_json(&nested(33, open, close)).unwrap_err();
            assert!(matches!(deeper, MetaError::TooDeep { depth: 33 }), "{deeper}");
        }
        assert!(matches!(Meta::from_json(&nested(800, "[", "]")), Err(MetaError::TooDeep { depth: 800 })));
    }

    #[test]
    fn brackets_in_texts_or_side_by_side_are_not_nested() {
        let in_text = format!(r#"{{"a\"":"{}\"[","b\\":[]}}"#, "[{".repeat(100));
        let beside = format!(r#"{{"a":[{}[]]}}"#, "[],".repeat(100));
        for json in [in_text, beside] {
            assert!(Meta::from_json(&json).is_ok(), "{json}");
        }
    }
}

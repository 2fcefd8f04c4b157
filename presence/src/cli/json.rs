//! JSON documents on one line.

use std::fmt::{self, Write};

use serde::{Serialize, Serializer, ser::Error};
use serde_json::value::RawValue;

use crate::model::Meta;

/// One document on one line.
pub(super) fn line(value: &impl Serialize) -> String {
    let mut json = serde_json::to_string(value).expect("what the tool prints has text keys and no failing parts");
    json.push('\n');
    json
}

/// A meta as its client wrote it, but without space between its parts, and with control characters escaped.
#[derive(Debug, Clone, Copy)]
pub(super) struct OneLine<'a>(pub(super) &'a Meta);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut in_string, mut escaped) = (false, false);
        for c in self.0.as_str().chars() {
            if in_string {
                in_string = c != '"' || escaped;
                escaped = c == '\\' && !escaped;
            } else if c.is_ascii_whitespace() {
                continue;
            } else {
                in_string = c == '"';
            }
            // JSON allows DEL and the C1 controls in a string, but a terminal would execute some of them.
            if c.is_control() {
                write!(f, "\\u{:04x}", u32::from(c))?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

impl Serialize for OneLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string()).map_err(Error::custom)?.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_is_printed_on_one_line_without_controls_and_without_loss() {
        let written = "{ \"a b\" :\n[1e2,\t\"\\\" x\\\\\" , \"\u{9b}31m\u{7f}\" ] }";
        let meta = Meta::from_json(written).unwrap();
        let printed = OneLine(&meta).to_string();
        assert_eq!(printed, r#"{"a b":[1e2,"\" x\\","\u009b31m\u007f"]}"#);
        assert_eq!(Meta::from_json(&printed).unwrap().to_object(), meta.to_object());
        assert_eq!(OneLine(&Meta::default()).to_string(), "{}");
    }
}

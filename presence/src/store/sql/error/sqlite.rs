//! What the errors of SQLite mean.

use sea_orm::sqlx::{error::DatabaseError, sqlite::SqliteError};

use super::{Classify, Trouble};

impl Classify for SqliteError {
    /// Sorted by the primary result codes of <https://www.sqlite.org/rescode.html>.
    fn trouble(&self) -> Trouble {
        const ERROR: u32 = 1;
        const BUSY: u32 = 5;
        const LOCKED: u32 = 6;
        const TOO_BIG: u32 = 18;
        const CONSTRAINT: u32 = 19;
        const MISMATCH: u32 = 20;
        const MISUSE: u32 = 21;
        const RANGE: u32 = 25;
        let extended: Option<u32> = self.code().and_then(|code| code.parse().ok());
        match extended.map(|code| code & 0xff) {
            Some(BUSY | LOCKED) => Trouble::Conflict,
            // An operator may mend the database, its file or its schema. The code is the same for many errors, so only the text shows that
            // a table does not exist.
            Some(ERROR) => {
                let says = |text| self.message().contains(text);
                if says("no such table") {
                    Trouble::TablesMissing
                } else if says("no such column") || says("has no column named") {
                    Trouble::Away
                } else {
                    Trouble::Permanent
                }
            }
            // There is one writer at a time, so no other transaction has just inserted such a row.
            Some(TOO_BIG | CONSTRAINT | MISMATCH | MISUSE | RANGE) => Trouble::Permanent,
            _ => Trouble::Away,
        }
    }

    /// SQLite names the columns, and not the index.
    fn is_channel_taken(&self) -> bool {
        self.is_unique_violation() && self.message().contains("presences.room_id, presences.channel_name")
    }
}

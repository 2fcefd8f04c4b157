//! What the errors of MariaDB and MySQL mean.

use sea_orm::sqlx::mysql::MySqlDatabaseError;

use super::{CHANNEL_INDEX, Classify, Trouble};

impl Classify for MySqlDatabaseError {
    fn trouble(&self) -> Trouble {
        by_number(self.number(), self.code())
    }

    fn is_channel_taken(&self) -> bool {
        names_channel_index(self.number(), self.message())
    }

    /// Of InnoDB, and of a statement whose time MariaDB limits.
    fn is_lock_timeout(&self) -> bool {
        matches!(self.number(), 1205 | 1969)
    }

    fn lacks_right(&self) -> bool {
        matches!(self.number(), 1142 | 1143 | 1227 | 1370)
    }

    #[cfg(feature = "cli")]
    fn is_access_denied(&self) -> bool {
        matches!(self.number(), 1044 | 1045 | 1698) || self.lacks_right()
    }
}

/// The message ends with the name of the index, on MySQL after the name of the table. Before that may be any text, for example a
/// channel with the name of the index.
fn names_channel_index(number: u16, message: &str) -> bool {
    let key = message.strip_suffix('\'').and_then(|message| message.rsplit(['\'', '.']).next());
    matches!(number, 1062 | 1586) && key == Some(CHANNEL_INDEX)
}

/// Sorted by the numbers of <https://mariadb.com/kb/en/mariadb-error-code-reference/>.
fn by_number(number: u16, state: Option<&str>) -> Trouble {
    match number {
        // Lock wait timeout, deadlock, and MariaDB's "record has changed since last read".
        1205 | 1213 | 1020 => Trouble::Conflict,
        1062 | 1586 => Trouble::Duplicate,
        1146 => Trouble::TablesMissing,
        // An operator can grant missing rights and resources, and restore a missing database or column.
        1044 | 1045 | 1049 | 1054 | 1142 | 1143 | 1203 | 1226 | 1227 | 1370 | 1461 => Trouble::Away,
        // A text that is invalid in its character set, or a statement that is larger than `max_allowed_packet`.
        1366 | 1153 => Trouble::Permanent,
        _ => match state {
            Some(state) if ["22", "23", "42"].iter().any(|class| state.starts_with(class)) => Trouble::Permanent,
            _ => Trouble::Away,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{Trouble::*, *};

    #[test]
    fn a_taken_channel_is_recognized_by_the_name_of_the_index() {
        for (number, message, is_taken) in [
            (1062, "Duplicate entry '\\x01-job 7' for key 'presences_room_channel'", true),
            (1062, "Duplicate entry '\\x01-job 7' for key 'presences.presences_room_channel'", true),
            (1586, "Duplicate entry '\\x01-job 7' for key 'presences_room_channel'", true),
            (1062, "Duplicate entry '\\x01-presences_room_channel' for key 'PRIMARY'", false),
            (1062, "Duplicate entry '\\x01-\\x02' for key 'presences_room_session'", false),
            (1213, "presences_room_channel'", false),
        ] {
            assert_eq!(names_channel_index(number, message), is_taken, "{message}");
        }
    }

    #[test]
    fn each_number_has_its_kind_of_trouble() {
        for (number, state, trouble, what) in [
            (1205, "HY000", Conflict, "lock wait timeout"),
            (1213, "40001", Conflict, "deadlock"),
            (1020, "HY000", Conflict, "record has changed"),
            (1062, "23000", Duplicate, "duplicate key"),
            (1586, "23000", Duplicate, "duplicate key, by name"),
            (1021, "HY000", Away, "disk full"),
            (1040, "08004", Away, "too many connections"),
            (1044, "42000", Away, "no right to the database"),
            (1045, "28000", Away, "wrong password"),
            (1049, "42000", Away, "no such database"),
            (1054, "42S22", Away, "no such column"),
            (1053, "08S01", Away, "shutting down"),
            (1142, "42000", Away, "no right to the table"),
            (1146, "42S02", TablesMissing, "no such table"),
            (1461, "42000", Away, "too many prepared statements on the server"),
            (1290, "HY000", Away, "read-only server"),
            (1317, "70100", Away, "statement killed"),
            (1792, "25006", Away, "read-only transaction"),
            (1927, "70100", Away, "connection killed"),
            (4031, "HY000", Away, "idle for too long"),
            (1048, "23000", Permanent, "null where none may be"),
            (1064, "42000", Permanent, "syntax error"),
            (1153, "08S01", Permanent, "larger than a packet may be"),
            (1366, "22007", Permanent, "not a text"),
            (1406, "22001", Permanent, "text too long"),
            (1452, "23000", Permanent, "foreign key"),
        ] {
            assert_eq!(by_number(number, Some(state)), trouble, "{number}: {what}");
        }
    }
}

//! What the errors of PostgreSQL, and of a pooler before it, mean.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sea_orm::sqlx::postgres::PgDatabaseError;

use super::{CHANNEL_INDEX, Classify, Trouble};

/// When a server last refused a write of this process because it may only be read.
static REFUSED_WRITE: Mutex<Option<Instant>> = Mutex::new(None);

/// For how long after such a refusal connections are checked before they are used again. Each connection to a standby is refused when it is
/// next used, which begins this time anew.
const SUSPECT_FOR: Duration = Duration::from_secs(60);

/// Whether a connection may lead to a server that does not accept writes.
pub(in super::super) fn has_refused_writes() -> bool {
    REFUSED_WRITE.lock().is_some_and(|at| at.elapsed() < SUSPECT_FOR)
}

/// What to change in a pooler that mixes up prepared statements.
pub(in super::super) const NO_STATEMENTS: &str = "a pooler between the node and the database mixes up the prepared statements of its clients: let it pool \
    sessions (PgBouncer: pool_mode = session), or transactions by PgBouncer 1.21 or later with max_prepared_statements above 0";

const STARTUP_PARAMETER: &str =
    "a pooler refuses a parameter of the connection: set ignore_startup_parameters = extra_float_digits in PgBouncer";

const NO_TRANSACTIONS: &str = "a pooler allows no transactions: let it pool sessions (PgBouncer: pool_mode = session)";

impl Classify for PgDatabaseError {
    fn trouble(&self) -> Trouble {
        by_code(self.code())
    }

    fn is_channel_taken(&self) -> bool {
        self.constraint() == Some(CHANNEL_INDEX)
    }

    fn is_lock_timeout(&self) -> bool {
        self.code() == "55P03"
    }

    fn lacks_right(&self) -> bool {
        self.code() == "42501"
    }

    #[cfg(feature = "cli")]
    fn is_access_denied(&self) -> bool {
        self.code().starts_with("28") || self.lacks_right()
    }

    /// The messages of a pooler do not say what to change in it.
    fn remedy(&self) -> Option<&'static str> {
        remedy_of(self.code(), self.message())
    }

    fn note(&self) {
        if self.code() == "25006" {
            *REFUSED_WRITE.lock() = Some(Instant::now());
        }
    }

    fn closes_connection(&self) -> bool {
        // Idle in a transaction for too long, ended by an operator, crashed.
        matches!(self.code(), "25P03" | "57P01" | "57P02")
    }
}

/// Sorted by the classes of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn by_code(code: &str) -> Trouble {
    match code {
        // Serialization failure, deadlock, lock not available.
        "40001" | "40P01" | "55P03" => Trouble::Conflict,
        "23505" => Trouble::Duplicate,
        "42P01" => Trouble::TablesMissing,
        // An operator can grant missing rights and restore missing columns. A prepared statement that exists already belongs to
        // another client.
        "42501" | "42703" | "42P05" => Trouble::Away,
        code if ["22", "23", "42", "0A"].iter().any(|class| code.starts_with(class)) => Trouble::Permanent,
        _ => Trouble::Away,
    }
}

fn remedy_of(code: &str, message: &str) -> Option<&'static str> {
    match code {
        // The prepared statement exists already, or does not exist.
        "42P05" | "26000" => Some(NO_STATEMENTS),
        // Protocol violation. The messages of PgBouncer have this code, and so has a statement of another client with other parameters.
        "08P01" if message.contains("startup parameter") => Some(STARTUP_PARAMETER),
        "08P01" if message.contains("statement pooling") => Some(NO_TRANSACTIONS),
        "08P01" if message.contains("prepared statement") => Some(NO_STATEMENTS),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Trouble::*, *};

    #[test]
    fn errors_of_a_pooler_say_what_to_change_in_it() {
        for (code, message, remedy) in [
            ("42P05", "prepared statement \"sqlx_s_1\" already exists", Some(NO_STATEMENTS)),
            ("26000", "prepared statement \"sqlx_s_3\" does not exist", Some(NO_STATEMENTS)),
            (
                "08P01",
                "bind message supplies 2 parameters, but prepared statement \"sqlx_s_3\" requires 1",
                Some(NO_STATEMENTS),
            ),
            ("08P01", "unsupported startup parameter: extra_float_digits", Some(STARTUP_PARAMETER)),
            ("08P01", "transaction blocks not allowed in statement pooling mode", Some(NO_TRANSACTIONS)),
            ("08P01", "server conn crashed?", None),
            ("42P01", "relation \"nodes\" does not exist", None),
        ] {
            assert_eq!(remedy_of(code, message), remedy, "{code}: {message}");
        }
    }

    #[test]
    fn each_code_has_its_kind_of_trouble() {
        for (code, trouble, what) in [
            ("40001", Conflict, "serialization failure"),
            ("40P01", Conflict, "deadlock"),
            ("55P03", Conflict, "lock timeout"),
            ("23505", Duplicate, "unique violation"),
            ("25006", Away, "read-only transaction"),
            ("25P03", Away, "idle in a transaction for too long"),
            ("08006", Away, "connection failure"),
            ("28P01", Away, "wrong password"),
            ("3D000", Away, "no such database"),
            ("42501", Away, "no right"),
            ("42P01", TablesMissing, "no such table"),
            ("42P05", Away, "a prepared statement of another client"),
            ("26000", Away, "no such prepared statement"),
            ("42703", Away, "no such column"),
            ("53100", Away, "disk full"),
            ("53300", Away, "too many connections"),
            ("57014", Away, "statement cancelled"),
            ("57P01", Away, "ended by an operator"),
            ("57P03", Away, "starting up"),
            ("58030", Away, "input or output error"),
            ("XX000", Away, "internal error"),
            ("0A000", Permanent, "not supported"),
            ("22001", Permanent, "text too long"),
            ("22021", Permanent, "not a text"),
            ("23502", Permanent, "null where none may be"),
            ("23503", Permanent, "foreign key"),
            ("42601", Permanent, "syntax error"),
        ] {
            assert_eq!(by_code(code), trouble, "{code}: {what}");
        }
    }
}

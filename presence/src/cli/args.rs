//! The arguments of the tool.

use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};

use crate::name::RoomName;

const AFTER_HELP: &str = "\
Works while nodes are running, also from cron: it asks no questions and prints no colors.

Exit codes:
  0    done
  1    failed; the message has the reason, such as the tables, the rights, the password
  2    not understood: the command, an option or the URL
  3    the database is unavailable; the same command may work later
  4    done, but a live node did not answer in time (prune-presences)
  130  stopped by Ctrl-C before it was done; 143: by SIGTERM
  `watch` exits with 0 when it is stopped.

Results go to standard output, messages to standard error.";

/// Shows who is in which room, and cleans the database of a presence application while its nodes are running.
#[derive(Debug, Parser)]
#[command(name = "presence", version, after_help = AFTER_HELP, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
    /// The database, such as `sqlite:///var/lib/chat/presence.db`. Required
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// One JSON document instead of a table; `watch` prints one object a line
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Brings the schema up to date; makes the file of SQLite if there is none
    Migrate,
    /// Lists the rooms and how many are in each
    Rooms,
    /// Lists who is in a room: every presence, those of anonymous sockets too
    Members {
        /// The room; one that begins with a dash goes after `--`
        room: RoomName,
    },
    /// Lists the users in a room, each once
    Users {
        /// The room; one that begins with a dash goes after `--`
        room: RoomName,
    },
    /// Lists the nodes and what is left of their leases
    Nodes,
    /// Removes presences that were not seen for some time
    ///
    /// Every live node receives a request to prune its own presences by its own clock, and this command waits for the answers. It
    /// removes the presences that belong to no live node itself, by the database's clock. A node that ended without a shutdown may have seen
    /// a presence later than it has written. So a presence that such a node left, and that is not held, is removed only when the longest
    /// possible delay has passed, too, except for `--age 0`, which removes all.
    #[command(visible_alias = "prune-presence", aliases = ["prune_presences", "prune_presence"])]
    PrunePresences {
        /// Presences that were not seen for longer are removed
        #[arg(long, env = "PRESENCE_MAX_AGE", value_parser = duration, default_value = "60s", allow_hyphen_values = true)]
        age: Duration,
        /// The setting `touch_flush_interval` of the nodes: how rarely they write when a presence was last seen
        #[arg(long, env = "PRESENCE_TOUCH_FLUSH_INTERVAL", value_parser = duration, default_value = "15s", allow_hyphen_values = true)]
        touch_flush_interval: Duration,
        /// How long to wait for the answers of live nodes, and for nodes with an expired lease to return. Nodes read requests
        /// once in a sweep interval, which is 2s unless set otherwise
        #[arg(long, value_parser = duration, default_value = "10s")]
        wait: Duration,
    },
    /// Removes the rooms that nobody is in
    #[command(visible_alias = "prune-room", aliases = ["prune_rooms", "prune_room"])]
    PruneRooms,
    /// Follows who joins, leaves and changes, until it is stopped
    ///
    /// Changes of one presence between two queries are printed as one, with their net effect.
    Watch {
        /// Only this room, which need not exist yet; without it, all rooms
        room: Option<RoomName>,
        /// Time between two queries of the database
        #[arg(long, value_parser = interval, default_value = "1s")]
        interval: Duration,
    },
}

impl Args {
    /// Checks that a database is given.
    pub(super) fn checked(self) -> Result<Self, clap::Error> {
        if self.database_url().is_empty() {
            let missing = "no database: give --database-url URL, or set DATABASE_URL";
            return Err(Self::command().error(ErrorKind::MissingRequiredArgument, missing));
        }
        Ok(self)
    }

    /// The URL; empty if it was not given.
    pub(super) fn database_url(&self) -> &str {
        self.database_url.as_deref().unwrap_or_default()
    }
}

/// A time with its unit; 0 needs none.
fn duration(text: &str) -> Result<Duration, Box<dyn std::error::Error + Send + Sync>> {
    match text {
        "0" => Ok(Duration::ZERO),
        negative if negative.starts_with('-') => Err("a time is not negative; 0 is the shortest".into()),
        text => Ok(humantime::parse_duration(text)?),
    }
}

fn interval(text: &str) -> Result<Duration, Box<dyn std::error::Error + Send + Sync>> {
    match duration(text)? {
        short if short < Duration::from_millis(10) => Err("it must be at least 10ms".into()),
        interval => Ok(interval),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}

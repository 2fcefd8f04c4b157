//! Log lines: errors with their causes, and lines that clients cause, limited in rate.
//!
//! An operator must be able to see which clients were cut off and why, but a thousand clients that disconnect at once must not
//! fill the log. So the first line of each cause is written at once, and after it at most one line per [`LINE_INTERVAL`],
//! with the number of lines that were left out. With the level `debug` nothing is left out.

use std::{error::Error, fmt, iter, time::Duration};

use parking_lot::Mutex;

use crate::clock::Tick;

/// An error and its causes on one line. A cause that the text before it already ends with is not repeated.
pub(crate) fn report(error: &dyn Error) -> String {
    let causes = iter::successors(error.source(), |cause| (*cause).source()).map(ToString::to_string);
    causes.fold(error.to_string(), |text, cause| if text.ends_with(&cause) { text } else { format!("{text}: {cause}") })
}

/// The shortest time between two lines of one cause.
pub(crate) const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Allows one line per [`LINE_INTERVAL`], and counts the others.
#[derive(Debug, Default)]
pub(crate) struct LineLimit(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    last: Option<Tick>,
    left_out: u64,
}

impl LineLimit {
    /// Returns, if a line may be written at `now`, how many were left out since the last line.
    pub(crate) fn admit(&self, now: Tick) -> Option<LeftOut> {
        let mut lines = self.0.lock();
        if lines.last.is_some_and(|last| now.since(last) < LINE_INTERVAL) {
            lines.left_out += 1;
            return None;
        }
        lines.last = Some(now);
        Some(LeftOut(std::mem::take(&mut lines.left_out)))
    }
}

/// How many lines of the same cause were left out before this line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeftOut(pub(crate) u64);

impl LeftOut {
    /// The number as a field of the line. `None` if no line was left out.
    pub(crate) fn field(self) -> Option<u64> {
        Some(self.0).filter(|count| *count > 0)
    }
}

/// Why a socket was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cutoff {
    /// The client did not read what was sent to it.
    TooSlow,
    /// The client did not answer a ping.
    NoPong,
    /// The client sent nothing for longer than `max_age`.
    Stale,
    /// The client did not read the answer to its handshake.
    NotFetched,
    /// The client exceeded a rate for longer than `rate_patience`.
    TooFast(&'static str),
    /// A frame or message was larger than allowed.
    TooLarge(&'static str),
    /// The client violated the WebSocket protocol.
    Protocol(&'static str),
}

impl Cutoff {
    /// Whether the client or the application is at fault, and not the network.
    pub(crate) const fn is_fault(self) -> bool {
        matches!(self, Self::TooSlow | Self::TooFast(_) | Self::TooLarge(_) | Self::Protocol(_))
    }
}

impl fmt::Display for Cutoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSlow => f.write_str(
                "too slow: it does not read what is sent to it, or so slowly that others waited for it (1013)",
            ),
            Self::NoPong => f.write_str("no answer to a ping within `pong_timeout`"),
            Self::Stale => f.write_str("stale: silent for longer than `max_age` (4408)"),
            Self::NotFetched => f.write_str("the answer to the handshake was not fetched within `handshake_timeout`"),
            Self::TooFast(what) => write!(f, "over a rate for longer than `rate_patience`: {what} (1008)"),
            Self::TooLarge(what) => write!(f, "over a limit: {what} (1009)"),
            Self::Protocol(what) => write!(f, "protocol violation: {what}"),
        }
    }
}

/// The limits of the lines about sockets that were cut off, one for each cause, and about denied sockets.
#[derive(Debug, Default)]
pub(crate) struct CutoffLimits {
    /// A page of another origin was refused.
    pub(crate) refused_origin: LineLimit,
    too_slow: LineLimit,
    no_pong: LineLimit,
    stale: LineLimit,
    not_fetched: LineLimit,
    too_fast: LineLimit,
    too_large: LineLimit,
    protocol: LineLimit,
}

impl CutoffLimits {
    /// The limit of the lines of this cause.
    pub(crate) const fn of(&self, cause: Cutoff) -> &LineLimit {
        match cause {
            Cutoff::TooSlow => &self.too_slow,
            Cutoff::NoPong => &self.no_pong,
            Cutoff::Stale => &self.stale,
            Cutoff::NotFetched => &self.not_fetched,
            Cutoff::TooFast(_) => &self.too_fast,
            Cutoff::TooLarge(_) => &self.too_large,
            Cutoff::Protocol(_) => &self.protocol,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_written_at_once_and_the_next_has_the_number_of_lines_left_out() {
        let limit = LineLimit::default();
        let at = |ms| limit.admit(Tick(ms)).map(|LeftOut(count)| count);
        assert_eq!(at(5), Some(0));
        assert_eq!((at(5), at(6), at(10_004)), (None, None, None));
        assert_eq!(at(10_005), Some(3));
        assert_eq!(at(30_000), Some(0), "nothing was left out meanwhile");
    }

    #[test]
    fn each_cause_has_a_limit_of_its_own() {
        let limits = CutoffLimits::default();
        assert!(limits.of(Cutoff::TooSlow).admit(Tick(0)).is_some());
        assert!(limits.of(Cutoff::Stale).admit(Tick(0)).is_some());
        assert!(limits.of(Cutoff::Protocol("malformed frame")).admit(Tick(0)).is_some());
        assert!(limits.of(Cutoff::Protocol("another reason")).admit(Tick(0)).is_none());
    }
}

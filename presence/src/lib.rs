//! Who is in which room, right now.

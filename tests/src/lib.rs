//! Nothing but a place for the tests in `it/`, which see the chat server as its users do.

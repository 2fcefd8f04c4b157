//! Compiles and runs the Rust blocks of the README and of `docs/` as doctests.

#[doc = include_str!("../../README.md")]
struct Readme;

#[doc = include_str!("../../docs/quick-start.md")]
struct QuickStart;

#[doc = include_str!("../../docs/configuration.md")]
struct Configuration;

#[doc = include_str!("../../docs/consumers.md")]
struct Consumers;

#[doc = include_str!("../../docs/rooms.md")]
struct RoomsFromAnywhere;

#[doc = include_str!("../../docs/testing.md")]
struct Testing;

#[doc = include_str!("../../docs/coming-from-django.md")]
struct ComingFromDjango;

#[doc = include_str!("../../docs/reading.md")]
struct ReadingRooms;

//! The Rust in the README and in `docs/`, each block a doctest: what is written there compiles and runs.

#[doc = include_str!("../../README.md")]
struct Readme;

#[doc = include_str!("../../docs/quick-start.md")]
struct QuickStart;

#[doc = include_str!("../../docs/configuration.md")]
struct Configuration;

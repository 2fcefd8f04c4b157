//! The tests are in `it/`; see its `main.rs`.

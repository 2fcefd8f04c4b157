//! A store that fails on demand, a clock that stands still, and the tests that every store must pass.

mod faulty;
mod manual_clock;
pub mod suite;

pub use faulty::FaultyStore;
pub use manual_clock::ManualClock;

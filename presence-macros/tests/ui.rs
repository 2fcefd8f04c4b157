//! What the attributes say about methods that are wrong: one mistake a file, one error a mistake.
//!
//! `TRYBUILD=overwrite cargo test -p presence-macros --test ui` writes the answers anew; read them before you commit
//! them.

#[test]
fn each_mistake_gets_one_error_that_points_at_it() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

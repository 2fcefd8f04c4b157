//! The errors of the compiler for wrong methods: each mistake is one error that points at it.
//!
//! `TRYBUILD=overwrite cargo test -p presence-macros --test ui` writes the expected errors anew; read them before you commit them.

#[test]
fn each_mistake_gets_one_error_that_points_at_it() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

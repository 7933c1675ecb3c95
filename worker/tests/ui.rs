//! What `#[task]` accepts, and what it says to everything else.

#[test]
fn task() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}

//! Code that uses a pool is tested as any other code: in this file there is one line for it.

use std::fs;
use std::path::Path;
use std::process::Command;

use coordinator::{Death, Pool, Process, Why, task};

coordinator::enable_in_tests!();

#[task]
fn double(x: i64) -> i64 {
    2 * x
}

#[task]
fn die() {
    std::process::abort();
}

#[task]
fn doubled_by_a_pool_within(x: i64) -> Result<i64, coordinator::CallError> {
    let pool = Pool::new(1).expect("a worker can have a pool");
    pool.call(double, x)
}

#[test]
fn a_pool_works_in_a_test() {
    let pool = Pool::new(2).unwrap();
    assert_eq!(
        pool.map(double, 0..100).unwrap(),
        (0..100).map(|x| 2 * x).collect::<Vec<_>>()
    );
    let died = pool.call(die, ()).unwrap_err();
    assert_eq!(died.why(), &Why::Died(Death::Signal(6)), "{died}");
    assert_eq!(pool.call(double, 4).unwrap(), 8);
}

#[test]
fn a_process_works_in_a_test() {
    let mut child = Process::new(double, 21).start().unwrap();
    assert_eq!(child.join().unwrap(), 42);
}

#[test]
fn a_pool_works_in_a_worker_of_a_test() {
    let pool = Pool::new(1).unwrap();
    assert_eq!(pool.call(doubled_by_a_pool_within, 3).unwrap(), 6);
}

/// A crate that depends on `coordinator` alone, under another name, with a task in its library, unit tests, and tests in
/// its documentation.
#[test]
fn one_dependency_is_enough() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let home = tempfile::tempdir().unwrap();
    let manifest = format!(
        "[package]\nname = \"user\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n[dependencies]\n\
         pool = {{ package = \"coordinator\", path = {:?}, default-features = false }}\n",
        root.join("coordinator")
    );
    let library = r#"
        //! ```
        //! pool::enable_in_tests!();
        //! let pool = pool::Pool::new(1).unwrap();
        //! assert_eq!(pool.map(user::half, [2, 4]).unwrap(), [1, 2]);
        //! ```
        #![forbid(unsafe_code)]

        /// Half of a number, if it has one.
        #[pool::task(crate = "pool")]
        pub fn half(x: i64) -> Result<i64, String> {
            if x % 2 == 0 { Ok(x / 2) } else { Err(format!("{x} is odd")) }
        }

        #[cfg(test)]
        mod tests {
            pool::enable_in_tests!();

            #[test]
            fn halves() {
                let pool = pool::Pool::new(2).unwrap();
                assert_eq!(pool.call(super::half, 8).unwrap(), 4);
                assert!(pool.call(super::half, 7).unwrap_err().to_string().contains("7 is odd"));
            }
        }
    "#;
    // A test is a crate of its own, and has a task of the same name.
    let test = r#"
        pool::enable_in_tests!();

        #[pool::task(crate = "pool")]
        fn half(x: i64) -> i64 { x / 2 + 1000 }

        #[test]
        fn two_crates_have_a_half() {
            let pool = pool::Pool::new(1).unwrap();
            assert_eq!(pool.call(half, 8).unwrap(), 1004);
            assert_eq!(pool.call(user::half, 8).unwrap(), 4);
            let check = |task| pool.with().check_text(task, [b"8".to_vec()]);
            check("user::half").unwrap();
            check("both::half").unwrap();
            let which = check("half").unwrap_err().to_string();
            assert!(which.contains("name one, both::half or user::half"), "{which}");
            let names: Vec<_> = pool.tasks().unwrap().iter().map(|task| task.name.clone()).collect();
            assert_eq!(names, ["both::half", "user::half"]);
        }
    "#;
    fs::create_dir(home.path().join("tests")).unwrap();
    fs::write(home.path().join("tests/both.rs"), test).unwrap();
    fs::create_dir(home.path().join("src")).unwrap();
    fs::write(home.path().join("Cargo.toml"), manifest).unwrap();
    fs::write(home.path().join("src/lib.rs"), library).unwrap();
    fs::copy(root.join("Cargo.lock"), home.path().join("Cargo.lock")).unwrap();
    let tested = Command::new(env!("CARGO"))
        .args(["test", "--offline", "--quiet"])
        .current_dir(home.path())
        .env("CARGO_TARGET_DIR", home.path().join("target"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&tested.stdout) + String::from_utf8_lossy(&tested.stderr);
    assert!(tested.status.success(), "{said}");
    assert_eq!(said.matches("1 passed").count(), 3, "{said}");
}

//! Tells the program which rdkafka crate it was built with, from its own lock file.

fn main() {
    println!("cargo::rerun-if-changed=Cargo.lock");
    let lock = std::fs::read_to_string("Cargo.lock").expect("Cargo.lock lies beside Cargo.toml");
    let (_, after) = lock.split_once("name = \"rdkafka\"\nversion = \"").expect("the lock file names rdkafka");
    let (version, _) = after.split_once('"').expect("a version ends with a quote");
    println!("cargo::rustc-env=RDKAFKA_CRATE_VERSION={version}");
}

//! The command line of coreferry.
fn main() {}

//! The binary `pinfold`.
fn main() {}

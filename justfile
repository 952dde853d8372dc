# Recipes for development. `just` lists them.

_default:
    @just --list --unsorted

# Everything that CI runs.
check:
    .ci/run

# All tests that need no other software.
test *ARGS:
    cargo test --workspace {{ARGS}}

# The suite with Kubo, Helia and other clients, which it installs into a cache directory.
peers *ARGS:
    ci/peers
    cargo test --workspace --features pinfold-server/foreign-peers --test peers --test docs -- {{ARGS}}

# Pinfold's speed next to Kubo's.
bench:
    ci/peers
    cargo build --release
    bench/fetch
    bench/upload

# A temporary server that pins from a temporary peer.
try *ARGS:
    cargo run --release -- try {{ARGS}}

# Format, and fix what clippy can.
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --all-features --fix --allow-dirty

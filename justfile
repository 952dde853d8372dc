# What a change needs on the way. `just` lists the recipes.

_default:
    @just --list --unsorted

# Everything that CI runs.
check:
    .ci/run

# The tests that need no foreign program.
test *ARGS:
    cargo test --workspace {{ARGS}}

# The suite beside Kubo, Helia and the samples' runtimes, which it installs into a cache folder.
peers *ARGS:
    ci/peers
    cargo test --workspace --features pinfold-server/foreign-peers --test peers --test docs -- {{ARGS}}

# Pinfold's speed beside Kubo's.
bench:
    ci/peers
    cargo build --release
    bench/fetch
    bench/upload

# A throw-away server that pins from a throw-away peer.
try *ARGS:
    cargo run --release -- try {{ARGS}}

# Format, and fix what clippy can.
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --all-features --fix --allow-dirty

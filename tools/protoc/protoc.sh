#!/bin/sh
# A protoc for the build scripts of dependencies: builds tools/protoc once, then runs it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out="$here/../../target/protoc"
# The outer build's settings (profile, wrapper, target) are not meant for this one.
unset CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR CARGO_BUILD_TARGET RUSTC_WORKSPACE_WRAPPER CARGO_ENCODED_RUSTFLAGS 2>/dev/null || true
"${CARGO:-cargo}" build --quiet --locked --manifest-path "$here/Cargo.toml" --target-dir "$out" >&2
exec "$out/debug/protoc" "$@"

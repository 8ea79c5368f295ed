#!/bin/sh
# Makes sure that etcd is on the PATH: installs it by the system's package manager where it is missing.
set -eu

command -v etcd >/dev/null 2>&1 && exit 0

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        echo "error: installing etcd needs root: run '$*' as root, then try again" >&2
        exit 1
    fi
}

echo "etcd is missing: installing it" >&2
if command -v apt-get >/dev/null 2>&1; then
    as_root apt-get update
    # Newer releases call the server etcd-server, older ones etcd.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends etcd-server ||
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends etcd
elif command -v dnf >/dev/null 2>&1; then
    as_root dnf install -y etcd
elif command -v pacman >/dev/null 2>&1; then
    as_root pacman -S --noconfirm etcd
elif command -v apk >/dev/null 2>&1; then
    as_root apk add etcd
elif command -v brew >/dev/null 2>&1; then
    brew install etcd
fi

if ! command -v etcd >/dev/null 2>&1; then
    echo "error: etcd is not on the PATH and could not be installed." >&2
    echo "       Install it by hand (https://etcd.io/docs/latest/install/) and try again," >&2
    echo "       or run without it: make run ARGS=--embedded" >&2
    exit 1
fi

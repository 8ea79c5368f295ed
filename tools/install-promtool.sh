#!/bin/sh
# Makes sure that promtool and prometheus are to be had, with which rules, dashboard and metrics are checked: those of the PATH,
# else unpacked into a directory from Debian's package. Nothing is installed, and no service is started.
#
#   tools/install-promtool.sh DIRECTORY
set -eu

directory=${1:?a directory}

has_both() {
    "$1promtool" --version >/dev/null 2>&1 && "$1prometheus" --version >/dev/null 2>&1
}
has_both '' && exit 0
has_both "$directory/bin/" && exit 0
echo "promtool is missing: unpacking it into $directory" >&2

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}
unpack() {
    rm -rf "$directory" && mkdir -p "$directory/bin" &&
        (cd "$directory" && apt-get download -qq prometheus 2>/dev/null && dpkg-deb -x prometheus_*.deb package) &&
        mv "$directory/package/usr/bin/promtool" "$directory/package/usr/bin/prometheus" "$directory/bin/" &&
        rm -rf "$directory/package" "$directory"/*.deb
}
if command -v apt-get >/dev/null 2>&1; then
    # The lists of packages may be missing or old.
    unpack || { as_root apt-get update -qq && unpack; } || true
fi
has_both "$directory/bin/" || {
    echo "error: promtool and prometheus are not on the PATH, and Debian's package prometheus is not to be had." >&2
    echo "       Install Prometheus 2.42 or newer (https://prometheus.io/download/) and try again." >&2
    exit 1
}

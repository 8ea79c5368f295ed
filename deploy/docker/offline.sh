#!/bin/sh
# Makes the images of deploy/compose without a registry, from Debian packages and from binaries built on this machine:
#
#   metasrv-base:offline   libc6 and libgcc-s1 and nothing else, as distroless/cc is
#   metasrv-etcd:offline   etcd and etcdctl on top of it
#   metasrv:offline        the last stage of deploy/docker/Dockerfile on the same base
#
#   deploy/docker/offline.sh [DIRECTORY]     where metasrv, metactl and datanode are; target/release by default
#
# The packages are unpacked and not installed (no debootstrap): no package's script runs, no root is needed, and it takes
# seconds. Base and etcd are made once; `docker rmi metasrv-base:offline metasrv-etcd:offline` and they are made anew.
set -eu

top=$(cd "$(dirname "$0")/../.." && pwd)
binaries=${1:-${CARGO_TARGET_DIR:-$top/target}/release}
base=metasrv-base:offline
etcd=metasrv-etcd:offline
image=metasrv:offline

fail() {
    echo "error: $*" >&2
    exit 1
}

for program in metasrv metactl datanode; do
    [ -x "$binaries/$program" ] ||
        fail "$binaries/$program is not there: cargo build --release -p metasrv -p datanode --bins"
done
for tool in docker apt-get dpkg-deb strip; do
    command -v "$tool" >/dev/null 2>&1 || fail "$tool is not on the PATH: this needs a Debian machine with Docker and binutils"
done
docker version >/dev/null 2>&1 || fail "no Docker engine answers (docker version)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

# Unpacks packages of the machine's own Debian release into a directory.
unpack() {
    into=$1
    shift
    mkdir -p "$work/packages" "$into"
    (
        cd "$work/packages"
        download() { apt-get download -qq -o APT::Sandbox::User=root "$@"; }
        download "$@" || { apt-get update -qq && download "$@"; }
    ) || fail "apt-get download $*"
    for package in "$work"/packages/*.deb; do
        dpkg-deb -x "$package" "$into"
    done
    rm -r "$work/packages"
    # Of the documentation only the licences stay.
    find "$into/usr/share" -mindepth 1 -maxdepth 1 ! -name doc -exec rm -r {} +
    find "$into/usr/share/doc" -type f ! -name copyright -delete
}

# An image of exactly this directory.
import() {
    tar -C "$1" --owner=0 --group=0 --numeric-owner -c . | docker import "$3" "$4" - "$2" >/dev/null
}

if ! docker image inspect "$base" >/dev/null 2>&1; then
    root=$work/base
    unpack "$root" libc6 libgcc-s1
    # Character sets, and locales: nothing here asks for them.
    find "$root" -type d -name gconv -prune -exec rm -r {} +
    mkdir -p "$root/etc" "$root/tmp" "$root/usr/local/bin"
    chmod 1777 "$root/tmp"
    printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
    printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"
    import "$root" "$base" --change 'ENV PATH=/usr/local/bin:/usr/bin:/bin'
fi

# The builder without BuildKit is the one that needs no plugin.
build() {
    DOCKER_BUILDKIT=0 docker build --quiet --build-arg BASE="$base" --tag "$1" "$2" >/dev/null 2>"$work/said" || {
        cat "$work/said" >&2
        fail "docker build of $1"
    }
}

if ! docker image inspect "$etcd" >/dev/null 2>&1; then
    unpack "$work/etcd-packages" etcd-server etcd-client
    mkdir "$work/etcd"
    mv "$work/etcd-packages/usr/bin/etcd" "$work/etcd-packages/usr/bin/etcdctl" "$work/etcd-packages/usr/share/doc" "$work/etcd"
    cat >"$work/etcd/Dockerfile" <<END
ARG BASE
FROM \${BASE}
COPY etcd etcdctl /usr/local/bin/
COPY doc/ /usr/share/doc/
EXPOSE 2379 2380
CMD ["/usr/local/bin/etcd"]
END
    build "$etcd" "$work/etcd"
fi

mkdir -p "$work/image/out/bin" "$work/image/out/lib/datanode" "$work/image/out/lib/regions"
for program in metasrv metactl datanode; do
    strip -o "$work/image/out/bin/$program" "$binaries/$program"
done
# The same last stage, from this machine's binaries instead of a builder's.
sed -e '/^FROM .* AS build$/,/^FROM \${BASE}$/ { /^FROM \${BASE}$/!d }' \
    -e 's|^COPY --from=build \(.*\)/out/|COPY \1out/|' -e '/^ARG BUILDER=/d' \
    "$top/deploy/docker/Dockerfile" >"$work/image/Dockerfile"
build "$image" "$work/image"

# What the image weighs, base included.
docker image inspect --format '{{.Size}}' "$image" | awk '{ printf "figure image_mib %.1f MiB\n", $1 / 1048576 }'

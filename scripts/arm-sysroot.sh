#!/bin/sh
# arm-sysroot.sh [DIR] - the arm64 libraries that tlr and its tests link, for
# cross-building on another Debian or Ubuntu machine.
#
# The packages are chosen and fetched by apt with its own state, cache and
# architecture under DIR (build/arm-sysroot), then only unpacked there: nothing
# is installed, the host's dpkg never hears of arm64, and no root is needed.
# The sources are the host's own; Ubuntu keeps arm64 on another server than
# amd64, TLR_ARM_MIRROR names a different one.  Prints DIR/root at the end.
set -eu

dir=${1:-build/arm-sysroot}
packages="libc6-dev libgcc-s1 check libopenblas-dev libjansson-dev \
libutf8proc-dev zlib1g-dev libssl-dev libpcre2-dev"
triple=aarch64-linux-gnu

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
root=$dir/root
stamp=$dir/complete
# A changed list of packages makes the sysroot anew.
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$packages" ]; then
    echo "$root"
    exit 0
fi
command -v apt-get >/dev/null 2>&1 || {
    echo "arm-sysroot: this needs apt-get (Debian, Ubuntu), found none" >&2
    exit 1
}

rm -rf "$root" "$stamp"
mkdir -p "$root/usr/lib" "$dir/state/lists/partial" \
    "$dir/cache/archives/partial" "$dir/etc"
: >"$dir/state/status"
# The words of apt-get's options, for every call.
set -- -q -o "Dir::State=$dir/state" -o "Dir::State::status=$dir/state/status" \
    -o "Dir::Cache=$dir/cache" -o APT::Architecture=arm64 \
    -o "APT::Architectures::=arm64" -o APT::Sandbox::User= \
    -o APT::Install-Recommends=false -o Debug::NoLocking=true

# shellcheck disable=SC1091
. /etc/os-release
if [ "${ID:-}" = ubuntu ]; then
    mirror=${TLR_ARM_MIRROR:-http://ports.ubuntu.com/ubuntu-ports}
    key=/usr/share/keyrings/ubuntu-archive-keyring.gpg
    for suite in "" -updates -security; do
        echo "deb [signed-by=$key] $mirror $VERSION_CODENAME$suite main universe"
    done >"$dir/etc/sources.list"
    set -- "$@" -o "Dir::Etc::sourcelist=$dir/etc/sources.list" \
        -o "Dir::Etc::sourceparts=$dir/etc/none"
fi

echo "+ fetching the arm64 packages of: $packages" >&2
# shellcheck disable=SC2086
fetch() {
    apt-get "$@" update &&
        apt-get "$@" install -y --download-only $packages
}
fetch "$@" >"$dir/apt.log" 2>&1 || {
    tail -n 20 "$dir/apt.log" >&2
    echo "arm-sysroot: apt-get could not fetch the arm64 packages ($dir/apt.log)" >&2
    exit 1
}

# Merged /usr, as on the systems the packages are made for.
ln -s usr/lib "$root/lib"
for deb in "$dir"/cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" |
        tar -x -C "$root" --keep-directory-symlink --no-same-owner \
            --exclude='./usr/share/*' --exclude='./etc/*' --exclude='./var/*'
done

# What maintainer scripts (update-alternatives) would have linked.
lib=$root/usr/lib/$triple
for file in "$lib"/openblas-pthread/libopenblas.so*; do
    ln -sf "openblas-pthread/${file##*/}" "$lib/${file##*/}"
done
ln -sf ../openblas-pthread/pkgconfig/openblas.pc "$lib/pkgconfig/openblas.pc"
# Links to absolute targets would leave the sysroot.
find "$root" -type l -lname '/*' | while read -r link; do
    target=$(readlink "$link")
    ln -sfr "$root$target" "$link"
done

rm -rf "$dir/cache" "$dir/state"
echo "$packages" >"$stamp"
echo "$root"

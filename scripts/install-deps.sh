#!/bin/sh
# install-deps.sh run|test|web|ci|arm - installs the missing system packages, only those.
#
# Prints the line it runs.  Works as root and through sudo; without apt it says
# exactly what is needed and fails.
set -eu

what=${1:-run}
run_packages="build-essential pkg-config libopenblas-dev libjansson-dev \
libutf8proc-dev zlib1g-dev libssl-dev libmicrohttpd-dev libcurl4-openssl-dev \
python3 python3-pip"
test_packages="check libpcre2-dev xz-utils openssl"
ci_packages="clang llvm mandoc shellcheck jq zsh fish bsdutils"
web_packages="chromium chromium-driver"
arm_packages="make pkg-config gcc-aarch64-linux-gnu qemu-user xz-utils"

case $what in
run) packages=$run_packages ;;
test) packages="$run_packages $test_packages" ;;
web) packages="$run_packages $web_packages" ;;
ci) packages="$run_packages $test_packages $ci_packages" ;;
arm) packages=$arm_packages ;;
*) echo "usage: install-deps.sh run|test|web|ci|arm" >&2; exit 2 ;;
esac

# Nothing to install where everything is found, whoever installed it.
have_all() {
    if [ "$what" = arm ]; then
        for tool in make pkg-config aarch64-linux-gnu-gcc qemu-aarch64 xz; do
            command -v $tool >/dev/null 2>&1 || return 1
        done
        return 0
    fi
    command -v cc >/dev/null 2>&1 && command -v make >/dev/null 2>&1 &&
    command -v pkg-config >/dev/null 2>&1 &&
    pkg-config --exists openblas jansson libutf8proc zlib \
        libcrypto libmicrohttpd libcurl || return 1
    [ "$what" = run ] && return 0
    if [ "$what" = web ]; then
        command -v chromedriver >/dev/null 2>&1
        return
    fi
    pkg-config --exists check libpcre2-8 &&
        command -v xz >/dev/null 2>&1 &&
        command -v openssl >/dev/null 2>&1 || return 1
    [ "$what" = test ] && return 0
    for tool in clang llvm-symbolizer mandoc shellcheck jq zsh fish script; do
        command -v $tool >/dev/null 2>&1 || return 1
    done
    have_fuzzer
}

# Newer clangs have their sanitizers' libraries in a package of their own.
have_fuzzer() {
    dir=$(mktemp -d) || return 1
    echo 'int LLVMFuzzerTestOneInput(void); int LLVMFuzzerTestOneInput(void) { return 0; }' |
        clang -fsanitize=fuzzer,address -x c -o "$dir/fuzzer" - 2>/dev/null
    status=$?
    rm -rf "$dir"
    return $status
}
have_all && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    cat >&2 <<EOF
install-deps: this system has no apt-get. Needed: a C11 compiler, GNU make,
pkg-config, python3 with pip, and the development files of OpenBLAS, jansson,
utf8proc, zlib, libmicrohttpd, libcurl and OpenSSL's libcrypto; for the tests Check, PCRE2 and xz.
With Homebrew: brew install pkg-config openblas jansson libmicrohttpd pcre2 utf8proc openssl curl check xz
EOF
    exit 1
fi

missing=
for p in $packages; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null |
        grep -q 'install ok installed' || missing="$missing $p"
done
[ -z "$missing" ] && { [ "$what" != ci ] || have_fuzzer; } && exit 0

sudo=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || {
        echo "install-deps: as root, run: apt-get install$missing" >&2
        exit 1
    }
    sudo=sudo
fi
echo "+ $sudo apt-get install -y --no-install-recommends$missing" >&2
$sudo apt-get update -qq
if [ "$what" = ci ] && apt-cache show libclang-rt-dev >/dev/null 2>&1; then
    missing="$missing libclang-rt-dev"
fi
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq \
    --no-install-recommends $missing >/dev/null
have_all || {
    echo "install-deps: packages are installed, yet pkg-config misses one of" \
         "openblas jansson libutf8proc zlib libcrypto libmicrohttpd libcurl check libpcre2-8," \
         "or a program (or clang's libraries) that they bring is missing:" \
         "$packages" >&2
    exit 1
}

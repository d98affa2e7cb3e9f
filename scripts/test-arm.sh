#!/bin/bash
# test-arm.sh - builds tlr's tests for arm64 and runs them under qemu-user.
#
# The kernels' room runs on one emulated processor per level, each without the
# instructions of the level above, so that code compiled for too much faults and
# detection is proven too; the other rooms run on the highest.  Emulation says
# whether the bits are right, nothing about speed.  BUILD_ARM (build/arm) has the
# objects, CC_ARM another compiler ("clang --target=aarch64-linux-gnu").
set -eu -o pipefail
cd "$(dirname "$0")/.."

build=${BUILD_ARM:-build/arm}
root=$(sh scripts/arm-sysroot.sh build/arm-sysroot)
lib=$root/usr/lib/aarch64-linux-gnu
export PKG_CONFIG_LIBDIR=$lib/pkgconfig:$root/usr/share/pkgconfig
export PKG_CONFIG_SYSROOT_DIR=$root
make=(make --no-print-directory -j2 BUILD="$build" \
    CC="${CC_ARM:-aarch64-linux-gnu-gcc} --sysroot=$root")
rooms="base kernels weights tokenizer convert model"

programs=
for room in $rooms; do programs+=" $build/check_$room"; done
# shellcheck disable=SC2086
"${make[@]}" $programs

n_failed=0
# on PROCESSOR ROOM: one run; its last line is "ROOM: N passed, ...".
on() {
    qemu-aarch64 -cpu "$1" -L "$root" "$build/check_$2" </dev/null |
        grep --line-buffered -v "not asked for" || { # the status of qemu: pipefail
        n_failed=$((n_failed + 1))
        echo "test-arm: $2 failed on $1 ${TLR_CPU:-}"
    }
}

export TLR_EMULATED=1 TLR_QUICK=1 OPENBLAS_NUM_THREADS=1
for pair in neon:cortex-a53 dotprod:neoverse-n1 i8mm:max; do
    level=${pair%:*}
    echo "=== kernels, rows of $level on an emulated ${pair#*:}"
    TLR_CPU=$level TLR_ROWS=$level CK_RUN_SUITE=variants \
        on "${pair#*:}" kernels
done
while IFS='()' read -r _ suite _; do
    case $suite in variants | sabotage*) continue ;; esac
    echo "=== kernels, suite $suite"
    CK_RUN_SUITE=$suite on max kernels
done <tests/kernels/suites.inc
for room in ${rooms/kernels/}; do
    echo "=== $room on an emulated max"
    on max "$room"
done
echo "test-arm: not run under emulation, where it would take long: the kernels'" \
    "sabotage (it proves the prover, not the machine), the rooms cli and real," \
    "the fuzzers' corpora"
[ $n_failed -eq 0 ] || { echo "test-arm: $n_failed runs failed"; exit 1; }
echo "test-arm: all runs passed"

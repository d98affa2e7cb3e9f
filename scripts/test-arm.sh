#!/bin/bash
# test-arm.sh - builds tlr's tests for arm64 and runs them under qemu-user.
#
# The kernels' variants run on one emulated processor per level, each without
# the instructions of the level above, so that code compiled for too much faults
# and detection is proven too; the rest runs on the highest.  Emulation says
# whether the bits are right, nothing about speed.  A run that takes longer than
# LIMIT (900 seconds) has failed.  BUILD_ARM (build/arm) has the objects, JOBS
# runs go at once (one per processor), ONLY=REGEX picks runs by their names,
# CC_ARM is another compiler ("clang --target=aarch64-linux-gnu").
set -eu -o pipefail
cd "$(dirname "$0")/.."

build=${BUILD_ARM:-build/arm}
jobs=${JOBS:-$(nproc)}
root=$(sh scripts/arm-sysroot.sh build/arm-sysroot)
lib=$root/usr/lib/aarch64-linux-gnu
export PKG_CONFIG_LIBDIR=$lib/pkgconfig:$root/usr/share/pkgconfig
export PKG_CONFIG_SYSROOT_DIR=$root
make=(make --no-print-directory -j"$jobs" BUILD="$build" \
    CC="${CC_ARM:-aarch64-linux-gnu-gcc} --sysroot=$root")

# Each run as NAME PROCESSOR LEVEL ROOM SUITE, "-" being all; the long ones
# first, so that none runs alone at the end.
suites() { sed -n 's/^X(\(.*\))$/\1/p' "tests/$1/suites.inc"; }
runs() {
    for pair in neon:cortex-a53 dotprod:neoverse-n1 i8mm:max; do
        echo "kernels/variants-${pair%:*} ${pair#*:} ${pair%:*} kernels variants"
    done
    for room in tokenizer convert weights base; do
        echo "$room max - $room -"
    done
    for room in model kernels; do
        suites $room | grep -vxE 'variants|sabotage.*|golden|full' |
            sed "s|.*|$room/& max - $room &|"
    done
}

export TLR_EMULATED=1 TLR_QUICK=1 OPENBLAS_NUM_THREADS=1 CK_TIMEOUT_MULTIPLIER=10
export build root LIMIT=${LIMIT:-900}
one() { # NAME PROCESSOR LEVEL ROOM SUITE
    log=$build/log-${1//\//-} start=$SECONDS status=0
    [ "$3" = - ] || export TLR_CPU=$3 TLR_ROWS=$3
    [ "$5" = - ] || export CK_RUN_SUITE=$5
    timeout -k 10 "$LIMIT" qemu-aarch64 -cpu "$2" -L "$root" "$build/check_$4" \
        </dev/null >"$log" 2>&1 || status=$?
    echo "$1 on an emulated $2, $((SECONDS - start)) s: $(tail -n 1 "$log")"
    [ $status -eq 0 ] && grep -q '^.*: [1-9][0-9]* passed, 0 failed' "$log" &&
        return 0
    grep -vE 'not asked for' "$log" | tail -n 40 | sed 's/^/    /'
    [ $status -eq 124 ] && echo "    took more than $LIMIT s"
    echo "test-arm: $1 FAILED (status $status)"
    return 1
}
export -f one

chosen=$(runs | grep -E "${ONLY:-.}") || { echo "test-arm: no run is called $ONLY" >&2; exit 1; }
rooms=$(echo "$chosen" | cut -d' ' -f4 | sort -u)
# shellcheck disable=SC2046,SC2086
"${make[@]}" $(printf "$build/check_%s " $rooms)
echo "$chosen" | xargs -P "$jobs" -L 1 bash -c 'one "$@"' one || {
    echo "test-arm: there are failures"
    exit 1
}
echo "test-arm: left out, for they take hours or need no Arm: the kernels'" \
    "sabotage (it proves the prover), large shapes, the model's suites golden" \
    "(4096 tokens) and full (0.5B), the rooms cli and real, the fuzzers' corpora"
echo "test-arm: all $(echo "$chosen" | wc -l) runs passed${ONLY:+ that match $ONLY}"

#!/bin/sh
# profile.sh TLR ARGUMENTS... - records a run with perf and draws a flame graph
# into build/profile/.  docs/profiling.md explains how to read it.
set -eu
cd "$(dirname "$0")/.."
out=build/profile
mkdir -p "$out"
if ! command -v perf >/dev/null 2>&1; then
    echo "profile: perf is not installed (Debian: linux-perf); without it," \
        "tlr run --profile and tlr bench --profile say where the time goes" >&2
    exit 1
fi
# cycles needs counters, which virtual machines may lack; cpu-clock does not.
event=cycles
perf stat -e cycles true >/dev/null 2>"$out/probe" || event=cpu-clock
if grep -q 'not supported' "$out/probe"; then event=cpu-clock; fi
echo "profile: event $event, $*" >&2
perf record -e "$event" -F 999 --call-graph dwarf,16384 -o "$out/perf.data" -- "$@"
perf report -i "$out/perf.data" --stdio --no-children --percent-limit 0.5 \
    -g none >"$out/report.txt" 2>/dev/null
perf script -i "$out/perf.data" 2>/dev/null |
    python3 bench/flamegraph.py >"$out/flame.svg"
grep -v '^#' "$out/report.txt" | head -n 30
echo "profile: $out/flame.svg, $out/report.txt" >&2

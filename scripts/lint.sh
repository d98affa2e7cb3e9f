#!/bin/sh
# lint.sh - the house rules that a machine can check.  Prints one line for each
# breach, "file:line: rule", and fails if there was one.
#
#   1. who may include whom (docs/architecture.md, "Who may include whom")
#   2. intrinsics only in kernels/x86 and kernels/arm, variant symbols only there
#      and in the dispatcher
#   3. no printing, exiting, aborting or getenv below cli/, no raw malloc
#      outside base/mem.c
#   4. files up to 600 lines, functions up to 100
#   5. no tabs, trailing blanks, missing final newline or non-ASCII in sources
#   6. shell scripts pass shellcheck, where it is installed
set -u
cd "$(dirname "$0")/.." || exit 2
bad=$(mktemp)
trap 'rm -f "$bad"' EXIT

sources=$(git ls-files -co --exclude-standard '*.c' '*.h' '*.inc' | sort)
product=$(echo "$sources" | grep -vE '^(tests|bench)/')

# 1. Room -> what it may include.  A name with a slash allows one header.
allowed() {
    case $1 in
    base) echo "base" ;;
    kernels) echo "kernels" ;;
    weights) echo "weights base kernels/quant.h" ;;
    engine) echo "engine weights kernels base" ;;
    router) echo "router engine kernels base" ;;
    convert) echo "convert engine weights kernels/quant.h base" ;;
    net) echo "net router engine base" ;;
    *) echo "" ;; # cli, bench, tests: anything
    esac
}
for f in $sources; do
    room=${f%%/*}
    rooms=$(allowed "$room")
    [ -z "$rooms" ] && continue
    grep -nE '^#include "' "$f" | sed -E 's/^([0-9]+):#include "([^"]+)".*/\1 \2/' |
    while read -r line header; do
        ok=no
        for r in $rooms; do
            case $header in "$r" | "$r"/*) ok=yes ;; esac
        done
        [ $ok = yes ] || echo "$f:$line: $room may not include $header"
    done >>"$bad"
done
for f in $product; do
    case $f in cli/*) continue ;; esac
    grep -nE '#include "(cli|bench|tests)/' "$f" |
        sed "s|^\([0-9]*\):.*|$f:\1: nothing includes cli, bench or tests|" >>"$bad"
done

# 2.
for f in $sources; do
    case $f in kernels/x86/* | kernels/arm/*) continue ;; esac
    grep -nE '#include <(immintrin|x86intrin|emmintrin|arm_neon)\.h>' "$f" |
        sed "s|^\([0-9]*\):.*|$f:\1: intrinsics belong in kernels/x86 or kernels/arm|" >>"$bad"
done

# 3.
for f in $product; do
    case $f in cli/*) continue ;; esac
    grep -nE '(^|[^a-zA-Z0-9_])(printf|puts|putchar|perror|exit|abort|getenv) ?\(' "$f" |
        grep -vE ':[[:space:]]*(\*|/\*|//)' |
        sed "s|^\([0-9]*\):.*|$f:\1: no printing, exit, abort or getenv below cli|" >>"$bad"
    [ "$f" = base/mem.c ] && continue
    grep -nE '(^|[^a-zA-Z0-9_])(malloc|calloc|realloc|strdup|free) ?\(' "$f" |
        grep -vE ':[[:space:]]*(\*|/\*|//)' |
        sed "s|^\([0-9]*\):.*|$f:\1: memory through base/mem.h|" >>"$bad"
done

# 4. A function runs from a "{" in column one to the next "}" there.
for f in $sources; do
    awk -v f="$f" '
        /^\{/ { start = NR }
        /^\}/ { if (start && NR - start > 100)
                    printf "%s:%d: function of %d lines\n", f, start, NR - start
                start = 0 }
        END { if (NR > 600) printf "%s:1: file of %d lines\n", f, NR }' "$f" >>"$bad"
done

# 5.
for f in $sources Makefile $(git ls-files -co --exclude-standard '*.sh'); do
    if [ "$f" != Makefile ]; then
        grep -nP '\t' "$f" | sed "s|^\([0-9]*\):.*|$f:\1: tab|" >>"$bad"
    fi
    grep -nE '[[:blank:]]+$' "$f" | sed "s|^\([0-9]*\):.*|$f:\1: trailing blank|" >>"$bad"
    LC_ALL=C grep -nP '[^\x00-\x7F]' "$f" | sed "s|^\([0-9]*\):.*|$f:\1: not ASCII|" >>"$bad"
    [ -z "$(tail -c1 "$f")" ] || echo "$f: no newline at the end" >>"$bad"
done

# 6.
if command -v shellcheck >/dev/null 2>&1; then
    for f in .ci/run $(git ls-files -co --exclude-standard '*.sh'); do
        [ -f "$f" ] && shellcheck -x -f gcc "$f" >>"$bad"
    done
else
    echo "lint: shellcheck is not installed: shell scripts not checked" >&2
fi

if [ -s "$bad" ]; then
    cat "$bad"
    echo "lint: $(wc -l <"$bad") breaches" >&2
    exit 1
fi
echo "lint: $(echo "$sources" | wc -l) files, no breach"

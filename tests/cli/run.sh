#!/bin/sh
# run.sh [TLR] - runs the program as a user does, and looks at exit status,
# standard output and standard error of each command.
#
# The models are tiny ones made on the fly from tests/golden/hf_folders.  What
# needs the real model or an optional tool is a counted skip; with TLR_NO_SKIP
# set a skip is a failure.
# shellcheck disable=SC2016 # sh -c gets its own arguments
set -u
export LC_ALL=C
unset NO_COLOR # TLR_CPU is the level that the whole suite runs at

here=$(cd "$(dirname "$0")/../.." && pwd)
tlr=${1:-$here/tlr}
case $tlr in /*) ;; *) tlr=$(pwd)/$tlr ;; esac
[ -x "$tlr" ] || { echo "run.sh: $tlr: no such program; run make" >&2; exit 2; }
folders=$here/tests/golden/hf_folders
real=$here/models/smollm2-135m-instruct.bin

tmp=$(mktemp -d "${TMPDIR:-/tmp}/tlr-cli.XXXXXX") || exit 2
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
cd "$tmp" || exit 2

passed=0 failed=0 skipped=0
pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAIL: $1"
    shift
    for line; do echo "    $line"; done
}
skip() { skipped=$((skipped + 1)); echo "skip: $1"; }

# try NAME STATUS STDOUT-GLOB STDERR-GLOB COMMAND...
# Standard input is the file named by $in, nothing by default.
in=/dev/null
try() {
    name=$1 want=$2 out_glob=$3 err_glob=$4
    shift 4
    "$@" <"$in" >out 2>err
    rc=$?
    ok=yes
    [ $rc -eq "$want" ] || ok="exit status $rc, expected $want"
    # shellcheck disable=SC2254 # they are patterns
    case $(tr -d '\000' <out) in $out_glob) ;; *) ok="stdout, expected $out_glob" ;; esac
    # shellcheck disable=SC2254
    case $(cat err) in $err_glob) ;; *) ok="stderr, expected $err_glob" ;; esac
    if [ "$ok" = yes ]; then
        pass
    else
        fail "$name: $ok" "$*" "stdout: $(head -c 300 out)" "stderr: $(head -c 500 err)"
    fi
}

no_temporaries() {
    set -- .*tmp-*
    if [ -e "$1" ]; then fail "temporaries stay: $*"; else pass; fi
}

same() { # NAME FILE FILE
    if cmp -s "$2" "$3"; then pass; else
        fail "$1: differs" "$(head -c 200 "$2")" "$(head -c 200 "$3")"
    fi
}

# The same names and no others: programs read them.
fields() { # NAME FILE JQ-PATH NAMES...
    name=$1 file=$2 path=$3
    shift 3
    json "$name: fields" "$file" "$path | keys == ($(printf '"%s",' "$@" | sed 's/^/[/; s/,$/]/') | sort)"
}

json() { # NAME FILE JQ-CONDITION
    command -v jq >/dev/null 2>&1 || { skip "$1: jq is not installed"; return; }
    if jq -e "$3" "$2" >/dev/null 2>&1; then pass; else
        fail "$1: expected $3" "$(head -c 500 "$2")"
    fi
}

# ---- the program and its documents -----------------------------------------
try version 0 'tlr [0-9]*' '' "$tlr" --version
try help 0 'tlr *usage:*convert*inspect*run*' '' "$tlr" --help
try 'help verb' 0 'usage: tlr run MODEL*' '' "$tlr" help run
try 'no verb' 2 '' 'tlr: a verb is missing*' "$tlr"
try 'wrong verb' 2 '' "tlr: there is no verb 'rnu'; did you mean run?*" "$tlr" rnu
try 'far verb' 2 '' "tlr: there is no verb 'xyzzy'; tlr --help*" "$tlr" xyzzy
try 'option first' 2 '' 'tlr: unknown option --json; options stand after*' "$tlr" --json run
try 'help of nothing' 2 '' "tlr: there is no verb 'zz'*" "$tlr" help zz
verbs='convert inspect run chat tokenize detokenize perplexity bench label train calibrate eval router serve'
for v in $verbs; do
    try "$v --help" 0 "usage: tlr $v*--help*examples:*" '' "$tlr" "$v" --help
    try "$v --nope" 2 '' 'tlr: unknown option --zzzzz*' "$tlr" "$v" --zzzzz
done
try 'help beats errors' 0 'usage: tlr run*' '' "$tlr" run --nope -h
try man 0 '.Dd *.Sh EXIT STATUS*' '' "$tlr" --man
if command -v mandoc >/dev/null 2>&1; then
    cp out tlr.1
    try 'man page lint' 0 '' '' mandoc -T lint -W style tlr.1
else
    skip 'man page lint: mandoc is not installed'
fi
for shell in bash zsh fish; do
    try "completion $shell" 0 '*repeat-penalty*' '' "$tlr" --completion $shell
    cp out completion
    if command -v $shell >/dev/null 2>&1; then
        try "completion $shell parses" 0 '' '' $shell -n completion
    else
        skip "completion $shell parses: $shell is not installed"
    fi
done
try 'completion of what' 2 '' 'tlr: --completion: expected bash, zsh or fish*' "$tlr" --completion csh
try 'full output' 1 '' 'tlr: standard output: writing failed: No space*' \
    sh -c '"$1" --help >/dev/full' sh "$tlr"
try 'closed output' 1 '' 'tlr: standard output: *' sh -c '"$1" --help >&-' sh "$tlr"

# ---- option values ----------------------------------------------------------
bad() { # WORDS OF MESSAGE, then command line
    glob=$1
    shift
    try "$*" 2 '' "tlr: $glob" "$tlr" "$@"
}
bad 'unknown option --tmep; did you mean --temp?*' run m p --tmep 1
bad 'unknown option -z; put -- before*' run m p -z
bad 'unknown option --max; did you mean --max-tokens?*' run m p --max 3
bad 'MODEL is missing*' run
bad 'PROMPT is missing*' run m
bad "unexpected operand 'world'; quote*" run m hello world
bad '-n: a value (N) is missing*' run m p -n
bad "-n: expected a whole number from 1 to *, found '0'*" run m p -n 0
bad "-n: expected a whole number *, found '1x'*" run m p -n1x
bad "-n: expected a whole number *, found ''*" run m p -n ''
bad "--max-tokens: expected a whole *, found '99999999999999999999'*" run m p --max-tokens=99999999999999999999
bad "--temp: expected a number from 0 to 100, found '-1'*" run m p --temp=-1
bad "--temp: expected a number *, found 'nan'*" run m p --temp nan
bad "--temp: expected a number *, found 'inf'*" run m p --temp inf
bad "--top-k: expected *, found '-1'*" run m p --top-k -1
bad "--top-p: expected *, found '0'*" run m p --top-p 0
bad "--top-p: expected *, found '1.5'*" run m p --top-p 1.5
bad "--min-p: expected *, found '1'*" run m p --min-p 1
bad "--repeat-penalty: expected *, found '0'*" run m p --repeat-penalty 0
bad "--seed: expected *, found 'x'*" run m p --seed x
bad "--ctx: expected *, found '0'*" run m p --ctx 0
bad "--kv: expected one of f32|f16|q8|auto, found 'f8'*" run m p --kv f8
bad "--act: expected one of int8|int16|auto, found 'int4'*" run m p --act int4
bad "--cpu: expected one of ref|*, found 'mmx'*" run m p --cpu mmx
bad '--threads: this process may use * found 4096*' run m p --threads 4096
bad '--json takes no value*' run m p --json=1
bad '--raw uses no template*' run m p --raw --system x
bad '--output OUT is missing*' convert src
bad "--type: expected one of f32|bf16|q8|q4|q4m|q4n|q8-plain|q4-plain, found 'q5'*" convert src -o x --type q5
bad 'expected a MODEL or --random NAME, found neither*' bench
bad 'expected a MODEL or --random NAME, found both*' bench m --random tiny-llama
bad '--type goes with --random*' bench m --type q8
bad "--branches: expected *, found '99'*" bench m --branches 99
bad "--reps: expected *, found '0'*" bench m --reps 0
bad '-p 0 -n 0 leaves nothing to measure*' bench m -p 0 -n 0
bad '--branches and --sessions are measured beside decoding*' bench m -n 0 --branches 2
bad '--branches and --sessions are measured beside decoding*' bench m -n 0 --sessions 2
bad "--sessions: expected *, found '9'*" bench m --sessions 9
for o in '--op add' --list '--seconds 1' --csv --md '--svg x.svg'; do
    # shellcheck disable=SC2086
    bad '--op, --list, --seconds, --csv, --md and --svg go with --kernels*' bench $o
done
bad '--kernels measures no model; leave out m;*' bench m --kernels
bad '--kernels measures no model; leave out --random*' bench --random tiny-llama --kernels
bad '--kernels measures no model; leave out --profile*' bench --kernels --profile
bad '--json, --csv and --md exclude one another*' bench --kernels --json --csv
bad '--list goes with --json or nothing*' bench --kernels --list --svg x.svg
bad "--op: no slot begins with 'nosuch'*" bench --kernels --list --op nosuch
bad "--seconds: expected a number from 0.1 *, found '0'*" bench --kernels --seconds 0
bad "--ctx: expected *, found '3'*" perplexity m f --ctx 3
pair='--task csqa --slm m --llm model:m'
# shellcheck disable=SC2086
{
    bad 'give one of --sweep, --target-routed and --tau, found none*' eval f $pair
    bad 'give one of --sweep, --target-routed and --tau, found several*' eval f $pair --sweep --tau 1
    bad 'give one of --json and --csv*' eval f $pair --sweep --json --csv
    bad '--llm URL|model:FILE is missing*' eval f --task csqa --slm m --sweep
}
bad 'FILE is given, so --llm and --out are needed*' calibrate f --slm m
bad '--out is given, so FILE and --llm are needed*' calibrate --slm m -o r
bad '--target-tok-s needs --latency-ms*' calibrate --slm m --target-tok-s 9
stops=
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17; do stops="$stops --stop x$i"; done
# shellcheck disable=SC2086
bad '--stop: given more than 16 times*' run m p $stops
try 'TLR_CPU' 2 '' "tlr: TLR_CPU: no level is called 'mmx'; this machine has ref*" \
    env TLR_CPU=mmx "$tlr" run m p

# ---- convert and inspect ----------------------------------------------------
m=$tmp/tiny.bin
try convert 0 '*tiny.bin: *tensors*without loss*verified*' '*' \
    "$tlr" convert "$folders/tiny-llama" -o tiny.bin --type f32 --verify
[ -f "$m" ] || { echo "cli: no model could be made, so nothing else can be tested"; exit 1; }
try 'convert --json' 0 '{*' '*' "$tlr" convert "$folders/tiny-qwen2" -o q2.bin --json
json 'convert --json' out '.tensors == .exact + .rounded and .path == "q2.bin" and .bytes > 1000'
fields 'convert --json' out . path bytes tensors exact rounded fallback types max_rel_rms worst verified
fields 'convert --json' out .types f32 bf16 q8 q4 q4m q4n q8p
cp q2.bin q2a.bin
try 'convert again' 0 '*' '*' "$tlr" convert "$folders/tiny-qwen2" -o q2.bin
same 'the same bytes again' q2.bin q2a.bin
try 'convert without source' 1 '' 'tlr: nosuch: *' "$tlr" convert nosuch -o x.bin
mkdir empty
try 'convert an empty folder' 1 '' 'tlr: *empty*' "$tlr" convert empty -o x.bin
try 'unknown random' 1 '' 'tlr: *' "$tlr" convert random:nosuch -o x.bin
try 'output in no folder' 1 '' 'tlr: nosuch/x.bin*' "$tlr" convert random:tiny-llama -o nosuch/x.bin
try 'output is a folder' 1 '' 'tlr: *empty*' "$tlr" convert random:tiny-llama -o empty
try 'source is output' 2 '' 'tlr: *source and output at once*' "$tlr" convert tiny.bin -o tiny.bin
try 'named like a source' 2 '' 'tlr: x.gguf: is named like a source*' "$tlr" convert tiny.bin -o x.gguf
head -c 7000 "$folders/make.py" >sample.txt
lora=$here/tests/golden/lora
try 'convert --lora' 0 '*lora.bin: *verified*' '*' "$tlr" convert "$folders/tiny-llama3" -o lora.bin \
    --lora "$lora/plain" --verify
try 'convert --lora again' 0 '*' '*' "$tlr" convert "$folders/tiny-llama3" -o lora2.bin --lora "$lora/plain/"
same 'convert --lora is repeatable' lora.bin lora2.bin
try 'inspect an adapter' 0 '*made from *and adapter*adapter_config.json*sha256*adapter_model.safetensors*' '' \
    "$tlr" inspect lora.bin
try 'convert --lora: no folder' 1 '' 'tlr: nosuch: expected a PEFT LoRA folder*' \
    "$tlr" convert "$folders/tiny-llama3" -o x.bin --lora nosuch
try 'convert --lora: other base' 1 '' 'tlr: *tensor base_model.*expected *found *another model*' \
    "$tlr" convert random:tiny-llama -o x.bin --lora "$lora/plain"
[ -e x.bin ] && fail 'a refused adapter left a file'
try 'convert --calibrate' 0 '*sample.bin: *q4n*' '*' "$tlr" convert "$folders/tiny-qwen2" -o sample.bin \
    --type q4 --calibrate sample.txt --calibrate-tokens 1100
try 'what it was calibrated on' 0 '{*' '' "$tlr" inspect sample.bin --json
json 'what it was calibrated on' out ".provenance.options == {\"type\": \"q4\", \"calibration\":
    {\"tokens\": 1024, \"text_sha256\": \"$( (sha256sum || shasum -a 256) <sample.txt 2>/dev/null | cut -d' ' -f1)\"}}"
try 'convert without it' 0 '{*' '*' "$tlr" convert "$folders/tiny-qwen2" -o rounded.bin --type q4 --json
json 'a 4-bit recipe' out '.types.q4n > 10 and .types.q8p == 1'
# Its provenance is longer by the text's checksum; a tensor would be thousands of bytes.
more=$(($(wc -c <sample.bin) - $(wc -c <rounded.bin)))
if [ "$more" -ge 0 ] && [ "$more" -lt 512 ] && ! cmp -s sample.bin rounded.bin; then pass; else
    fail 'calibrated: as large as rounded to nearest, with other numbers'
fi
cp sample.bin sample2.bin
try 'calibrate again' 0 '*' '*' "$tlr" convert "$folders/tiny-qwen2" -o sample.bin \
    --type q4 --calibrate sample.txt --calibrate-tokens 1100
same 'the same calibrated bytes again' sample.bin sample2.bin
printf short >short.txt
try 'calibration text too short' 1 '' 'tlr: calibration text: expected 512 tokens or more, found *' \
    "$tlr" convert "$folders/tiny-qwen2" -o sample.bin --type q4 --calibrate short.txt
same 'it leaves the old model' sample.bin sample2.bin
try 'no calibration text' 1 '' 'tlr: nosuch: *' \
    "$tlr" convert "$folders/tiny-qwen2" -o x.bin --type q4 --calibrate nosuch
try 'calibrate without a tokenizer' 2 '' 'tlr: calibration: this source has no tokenizer*' \
    "$tlr" convert random:tiny-llama -o x.bin --type q4 --calibrate sample.txt
bad "--calibrate-tokens: expected *, found '5'*" convert src -o x --calibrate-tokens 5
bad '--calibrate-tokens goes with --calibrate*' convert src -o x --type q4 --calibrate-tokens 512
for t in q8 q4-plain bf16; do
    try "calibrate $t" 2 '' "tlr: calibration: expected matrices that are rounded to q4n, found none (type $t); *" \
        "$tlr" convert "$folders/tiny-qwen2" -o x.bin --type $t --calibrate sample.txt
done
try 'calibrate what is kept' 2 '' 'tlr: calibration: * found none (type not given); *' \
    "$tlr" convert "$folders/tiny-qwen2" -o x.bin --calibrate sample.txt
cp q2.bin old.bin
try 'file limit' 1 '' 'tlr: *old.bin*' \
    sh -c 'ulimit -f 32; "$1" convert random:tiny-llama -o old.bin' sh "$tlr"
same 'file limit leaves the old model' old.bin q2.bin
no_temporaries

try inspect 0 '*llama*tokenizer*chat*per token*made from*' '' "$tlr" inspect "$m"
try 'inspect --verify' 0 '*verified*' '*' "$tlr" inspect "$m" --verify
try 'inspect --json' 0 '{*' '' "$tlr" inspect "$m" --json --tensors
json 'inspect --json' out '.config.n_layers == 2 and (.tensors | length) > 10 and .tokenizer.tokens > 256 and .chat.name != null'
try 'no such model' 1 '' 'tlr: nosuch.bin: *' "$tlr" inspect nosuch.bin
try 'a folder as model' 1 '' 'tlr: empty: *' "$tlr" inspect empty
: >zero.bin
try 'an empty model' 1 '' 'tlr: zero.bin: *' "$tlr" inspect zero.bin
try 'text as model' 1 '' 'tlr: *config.json: *' "$tlr" inspect "$folders/tiny-llama/config.json"
size=$(wc -c <"$m")
for n in 1 63 64 100 1000 $((size / 2)) $((size - 1)); do
    head -c "$n" "$m" >cut.bin
    try "cut to $n bytes" 1 '' 'tlr: cut.bin: *' "$tlr" run cut.bin x --raw -n 1
done
cp "$m" long.bin; printf x >>long.bin
try 'one byte too many' 1 '' 'tlr: long.bin: *' "$tlr" inspect long.bin
flip() { # OFFSET
    cp "$m" flip.bin
    byte=$(dd if="$m" bs=1 skip="$1" count=1 2>/dev/null | od -An -tu1 | tr -d ' ')
    # shellcheck disable=SC2059
    printf "\\$(printf %o $((byte ^ 64)))" | dd of=flip.bin bs=1 seek="$1" conv=notrunc 2>/dev/null
}
for at in 0 8 20 70 $((size - 5)) $((size / 2)); do
    flip "$at"
    try "bit flipped at $at" 1 '' 'tlr: flip.bin: *' "$tlr" inspect flip.bin --verify
done

# ---- tokenize and detokenize ------------------------------------------------
printf 'Hello, world! \303\251\360\237\231\202\n<|im_start|>\t 12345  \033[31m\377\376' >text
in=text
try 'tokenize -' 0 '[0-9]*' '' "$tlr" tokenize "$m" -
cp out ids
try 'tokenize stdin' 0 '[0-9]*' '' "$tlr" tokenize "$m"
same 'tokenize without operand' out ids
try 'tokenize --json' 0 '{"ids": [[][0-9]*' '' "$tlr" tokenize "$m" - --json
cp out ids.json
json 'tokenize --json' ids.json '(.ids | length) == .count and .encode_ms > 0'
in=ids.json
try 'detokenize json' 0 '*' '' "$tlr" detokenize "$m" -
same 'text from JSON' out text
in=ids
try 'detokenize plain' 0 '*' '' "$tlr" detokenize "$m"
same 'text from ids' out text
try 'detokenize --json' 0 '{"text": *' '' "$tlr" detokenize "$m" --json
json 'detokenize --json' out '.text | startswith("Hello, world!")'
in=/dev/null
try 'tokenize nothing' 0 '{"ids": [[]], "count": 0, "encode_ms": [0-9]*}' '' "$tlr" tokenize "$m" '' --json
try 'tokenize a folder' 0 '[0-9]*' '' "$tlr" tokenize "$folders/tiny-llama" 'Hello'
cp out folder_ids
try 'tokenize a model' 0 '[0-9]*' '' "$tlr" tokenize "$m" 'Hello'
same 'a folder and its model' out folder_ids
try 'special' 0 '[0-9]*' '' "$tlr" tokenize "$m" '<|im_start|>' --no-bos
if [ "$(wc -w <out)" -eq 1 ]; then pass; else fail 'a special token is one id'; fi
try 'no special' 0 '[0-9]*' '' "$tlr" tokenize "$m" '<|im_start|>' --no-special
if [ "$(wc -w <out)" -gt 3 ]; then pass; else fail 'as text it is more than one'; fi
try 'skip special' 0 'ab' '' sh -c '"$1" tokenize "$2" "a<|im_start|>b" | "$1" detokenize "$2" --skip-special' sh "$tlr" "$m"
try pieces 0 '*"H*' '' "$tlr" tokenize "$m" 'Hello' --pieces
try 'id too large' 2 '' 'tlr: id 999999: expected 0 to *' "$tlr" detokenize "$m" 999999
try 'no id' 2 '' "tlr: expected a token id, found 'x'*" "$tlr" detokenize "$m" x
printf '{"ids": [1, ' >broken; in=broken
try 'broken JSON' 1 '' 'tlr: standard input: line 1*' "$tlr" detokenize "$m"
in=/dev/null
try 'no tokenizer: make' 0 '*' '*' "$tlr" convert random:tiny-llama -o random.bin
try 'no tokenizer: tokenize' 1 '' 'tlr: random.bin: carries no tokenizer*' "$tlr" tokenize random.bin x
try 'no tokenizer: run' 1 '' 'tlr: random.bin: carries no tokenizer*' "$tlr" run random.bin x
# A reader that goes away: no message.
cp text big
for i in 1 2 3 4 5; do cat big big big big big big big big >bigger; mv bigger big; done
{ "$tlr" tokenize "$m" - <big 2>err; echo $? >rc; } | head -c 1 >/dev/null
if [ "$(cat rc)" -eq 1 ] && ! [ -s err ]; then pass; else fail 'reader goes away' "$(cat rc err)"; fi

# ---- run --------------------------------------------------------------------
try run 0 '?*' '' "$tlr" run "$m" 'The river' --temp 0 -n 40
cp out answer
printf 'The river' >prompt; in=prompt
try 'prompt from stdin' 0 '?*' '' "$tlr" run "$m" - --temp 0 -n 40
same 'prompt from stdin' out answer
in=/dev/null
try 'run --json' 0 '{*' '' "$tlr" run "$m" 'The river' --temp 0 -n 40 --json
cp out run.json
json 'run --json' run.json '(.ids | length) == .completion_tokens and .completion_tokens <= 40
    and .prompt_tokens > 3 and (.finish_reason | . == "stop" or . == "length")
    and .load_ms > 0 and .ttft_ms > 0 and .prefill_tok_s > 0 and .decode_tok_s >= 0
    and .peak_rss_bytes > 1000000 and .template != null'
fields 'run --json' run.json . text ids prompt_tokens completion_tokens finish_reason load_ms ttft_ms first_token_ms \
    prefill_tok_s decode_tok_s peak_rss_bytes threads cpu kv act ctx template seed
ids_of() { sed 's/.*"ids": \(\[[^]]*\]\).*/\1/' "$1"; }
ids_of run.json >ids1
for option in '-t 1' '-t 2' '--seed 9' '--stats'; do
    case $option in '-t 2') [ "$(nproc 2>/dev/null || echo 1)" -ge 2 ] || continue ;; esac
    # shellcheck disable=SC2086
    try "run $option" 0 '{*' '*' "$tlr" run "$m" 'The river' --temp 0 -n 40 --json $option
    ids_of out >ids2
    same "the same ids with $option" ids2 ids1
done
try 'run --stats' 0 '*' '*load*prompt*tok/s*threads*kernels*template*KV*' "$tlr" run "$m" x --stats -n 4
try 'TLR_CPU=ref' 0 '*' '*ref kernels*' env TLR_CPU=ref "$tlr" run "$m" x --stats -n 4
try '--cpu wins' 0 '*' '*ref kernels*' env TLR_CPU=nosuch "$tlr" run "$m" x --stats -n 4 --cpu ref
try 'kv f32' 0 '*' '*f32*' "$tlr" run "$m" x --stats -n 4 --kv f32
try 'raw' 0 '*' '*template none*' "$tlr" run "$m" 'The river' --raw --stats -n 4
try 'estimate' 0 'weights *total *' '' "$tlr" run "$m" --estimate
try 'estimate json' 0 '{*' '' "$tlr" run "$m" --estimate --json --ctx 100
json 'estimate json' out '.total_bytes >= .weights_bytes + .kv_bytes'
try 'seed' 0 '{*' '' "$tlr" run "$m" x --temp 1.5 --seed 5 -n 20 --json --top-k 50 --top-p 0.9 --min-p 0.01
ids_of out >ids1
try 'seed again' 0 '{*' '' "$tlr" run "$m" x --temp 1.5 --seed 5 -n 20 --json --top-k 50 --top-p 0.9 --min-p 0.01
ids_of out >ids2
same 'the same seed' ids1 ids2
try 'another seed' 0 '{*' '' "$tlr" run "$m" x --temp 1.5 --seed 6 -n 20 --json --top-k 50 --top-p 0.9 --min-p 0.01
ids_of out >ids2
if cmp -s ids1 ids2; then fail 'another seed makes the same text'; else pass; fi
for seed in 1 2 3 4 5 6; do
    "$tlr" run "$m" x --raw --temp 5 --seed $seed -n 200 >out 2>err
    if iconv -f UTF-8 -t UTF-8 out >/dev/null 2>&1; then pass; else fail "broken UTF-8 with seed $seed"; fi
done

# Stop strings: cut before the first one, wherever tokens end.
stop=$(grep -ao '[a-z][a-z,. ]' answer | sed -n 3p)
if [ -n "$stop" ]; then
    whole=$(cat answer)
    printf '%s\n' "${whole%%"$stop"*}" >expected
    try 'stop' 0 '*' '' "$tlr" run "$m" 'The river' --temp 0 -n 40 --stop "$stop" --stop 'zq#zq#'
    same 'text before the stop string' out expected
    try 'stop --json' 0 '*"finish_reason": "stop"*' '' "$tlr" run "$m" 'The river' --temp 0 -n 40 --stop "$stop" --json
    try 'a stop that never comes' 0 '*' '' "$tlr" run "$m" 'The river' --temp 0 -n 40 --stop "${stop}zq#zq#"
    same 'text that was held back' out answer
else
    fail 'no two letters in the answer to use as stop string' "$(cat answer)"
fi

# What does not fit is refused, never cut.
head -c 400 "$folders/make.py" >longish.txt; in=longish.txt
head -c 6000 "$folders/make.py" >long.txt
try 'prompt too long' 1 '' 'tlr: prompt: [0-9]* tokens do not fit the context of 64; shorten it or give it --ctx*' \
    "$tlr" run "$m" - --ctx 64
in=long.txt
try 'prompt too long for the model' 1 '' 'tlr: prompt: [0-9]* tokens do not fit the context of 512; shorten it' \
    "$tlr" run "$m" -
in=/dev/null
try 'context too long' 1 '' 'tlr: *512*4096*' "$tlr" run "$m" x --ctx 4096
try 'empty prompt' 2 '' 'tlr: the prompt is empty*' "$tlr" run "$m" '' --raw
try 'context ends the answer' 0 '*' '*' "$tlr" run "$m" 'The river' --raw --temp 3 --seed 1 -n 5000 --ctx 40 --json
json 'context ends the answer' out '.prompt_tokens + .completion_tokens <= 41'
try 'run into a full disk' 1 '' 'tlr: standard output: writing failed: No space*' \
    sh -c '"$1" run "$2" x -n 8 >/dev/full' sh "$tlr" "$m"
try 'prompt after --' 0 '*' '' "$tlr" run "$m" -n 2 -- --temp

# On a terminal nothing of a model is obeyed.
if script -qec true /dev/null </dev/null >/dev/null 2>&1; then
    escape=$(printf '\033[31mred\007' | "$tlr" tokenize "$m" -)
    script -qec "'$tlr' detokenize '$m' $escape 2>/dev/null" /dev/null </dev/null >out 2>/dev/null
    if grep -q 'red' out && ! tr -d '\r\n' <out | grep -q '[[:cntrl:]]'; then pass; else
        fail 'control characters reach the terminal' "$(od -c out | head -5)"
    fi
else
    skip 'control characters on a terminal: no util-linux script'
fi

# ---- chat -------------------------------------------------------------------
printf 'The river\n/reset\n\n/help\nThe river\n/nosuch\nagain\n/exit\nnever\n' >talk.txt; in=talk.txt
try chat 0 '?*' '*/reset*there is no command /nosuch*' "$tlr" chat "$m" --temp 0 -n 12
cp out chat_out
in=/dev/null
"$tlr" run "$m" 'The river' --temp 0 -n 12 >one 2>/dev/null
n=$(wc -c <one)
head -c "$n" chat_out >first
tail -c +"$((n + 1))" chat_out | head -c "$n" >second
same 'first reply is that of run' first one
same 'after /reset the same again' second one
try 'chat, end of input' 0 '' '' "$tlr" chat "$m"
{ tr '\n' ' ' <long.txt; echo; echo 'The river'; } >talk.txt; in=talk.txt
try 'chat: message too long' 1 '?*' 'tlr: prompt: [0-9]* tokens do not fit*' "$tlr" chat "$m" --temp 0 -n 12
same 'chat goes on after it' out one
i=0; while [ $i -lt 60 ]; do echo 'Tell me more about the river.'; i=$((i + 1)); done >talk.txt
try 'chat: context full' 1 '?*' '*tokens after [0-9]* of the conversation do not fit*' "$tlr" chat "$m" --temp 0 -n 8
in=/dev/null

# ---- label -------------------------------------------------------------------
i=0
while [ $i -lt 40 ]; do
    printf '{"prompt":"What is %d + 3?","cot":"There are %d rivets, and 3: \\\\boxed{%d}","answerKey":"%d"}\n' \
        $i $i $((i + 3)) $((i + 3))
    i=$((i + 1))
done >sums.jsonl
label() { "$tlr" label sums.jsonl --task gsm8k --slm "$m" --llm "model:${llm:-$m}" -o "$@"; }
try label 0 '8 of 8 questions in eight.tlrd, 8 of them now: *1  small model right*labels: keep*' '*s, * tokens*' \
    label eight.tlrd --max-items 8
try 'label --json' 0 '{*' '' label jobs.tlrd --max-items 8 --jobs 2 --json
json 'label --json' out '.questions == 8 and .questions_done == 8 and .questions_now == 8 and .jobs == 2 and .round == 0 and
    .rows == .case_slm_right + .case_llm_right + .case_outcome + .case_open and .keep + .ask + .case_open == .rows and
    .case_outcome > 0 and .case_llm_right == 0 and .completion_tokens > 0'
same 'two jobs make the same labels' eight.tlrd jobs.tlrd
try 'label the rest' 0 '20 of 20 questions in jobs.tlrd, 12 of them now*' 'jobs.tlrd: holds 8 questions, going on*' \
    label jobs.tlrd --max-items 20
try 'label nothing more' 0 '20 of 20 questions in jobs.tlrd, 0 of them now*' '*' label jobs.tlrd --max-items 20
try 'label, another seed' 1 '' 'tlr: jobs.tlrd: *' label jobs.tlrd --seed 2
try 'label, other worked examples' 1 '' 'tlr: jobs.tlrd: *' label jobs.tlrd --shots 0
try 'label, too many worked examples' 2 '' 'tlr: --shots: *' label jobs.tlrd --shots 6
try 'label --chains llm' 0 '*3  both wrong, finished   0*' '*' label llm.tlrd --max-items 3 --chains llm --chain-tokens 20
try 'label --chains mixed' 0 '*2  only large model right 0*' '*' label mix.tlrd --max-items 3 --chains mixed --mix 0.5 --chain-tokens 20
try 'label --chains mixed --previous' 2 '' 'tlr: --previous: a later round needs*' label x.tlrd --chains mixed --router r --previous p
sed 's/"cot":/"cut":/' sums.jsonl | head -n 3 >cut.jsonl
try 'label without chains' 1 '' 'tlr: cut.jsonl: line 1: cot: expected a gold chain of thought, found nothing*--chains llm*' \
    "$tlr" label cut.jsonl --task gsm8k --slm "$m" --llm "model:$m" -o x.tlrd
{ head -n 2 sums.jsonl; echo '{"prompt":"?"}'; } >short.jsonl
try 'label, a field is missing' 1 '' 'tlr: short.jsonl: line 3: answerKey: expected a string, found nothing*' \
    "$tlr" label short.jsonl --task gsm8k --slm "$m" --llm "model:$m" -o x.tlrd
llm=q2.bin try 'label, another vocabulary' 1 '' 'tlr: *q2.bin: *the same tokenizer*' label x.tlrd
try 'label, a later round without labels' 2 '' 'tlr: --router: needs --previous or --chains mixed*' label x.tlrd --router r
try 'label, no such model kind' 2 '' "tlr: --llm: expected a URL or model:FILE, found 'big'*" \
    "$tlr" label sums.jsonl --task gsm8k --slm "$m" --llm big -o x.tlrd
if [ -e x.tlrd ]; then fail 'a refused label leaves a file'; else pass; fi

# ---- train -------------------------------------------------------------------
try 'convert a doubtful twin' 0 '*' '*' "$tlr" convert "$folders/tiny-llama" -o rough.bin --type q4-plain
llm=rough.bin try 'label both classes' 0 '20 of 20 questions*' '*' label both.tlrd --chains llm --chain-tokens 20 --max-items 20
train() { "$tlr" train both.tlrd --hidden 8 --epochs 3 -o "$@"; }
try train 0 '340 rows trained on, 60 of 3 questions held out*mlp *entropy *' '*' train r1.bin
try 'train --json' 0 '{*' '*' train r2.bin --threads 1 --json
json 'train --json' out '.rows == 400 and .rows_trained == 340 and .questions_held_out == 3 and .policy == "mlp" and
    .auroc > 0 and .temperature > 0 and (.signals | length) == 4 and (.shares | length) == 10 and .resumed_at == 0'
same 'train is repeatable' r1.bin r2.bin
if [ -e r2.bin.ckpt ]; then fail 'train leaves its checkpoint'; else pass; fi
for policy in mlp+ deferral; do
    try "train --policy $policy" 0 "*$policy *" '*' train r3.bin --policy $policy --for "$m"
done
try 'train --loss bt' 0 '*mlp *' '*' train r3.bin --loss bt --pos-weight auto
llm=rough.bin try 'label own text' 0 '20 of 20 questions*' '*' label own.tlrd --chains mixed --mix 0 --completions 0 --chain-tokens 20 --max-items 20
try 'train --unlikely' 0 '*mlp *' '*' "$tlr" train own.tlrd --unlikely 0.03 --hidden 8 --epochs 3 -o r5.bin
try 'train --unlikely, nothing is' 1 '' 'tlr: dataset: all * rows * have label 1; *' "$tlr" train own.tlrd --unlikely 1e-30 -o x.bin
try 'train for another model' 1 '' 'tlr: both.tlrd: labelled with the model of fingerprint * but rough.bin has *' \
    train x.bin --for rough.bin
try 'train on one class' 1 '' 'tlr: dataset: all * rows * have label 0; *' "$tlr" train jobs.tlrd -o x.bin
head -c 20000 both.tlrd >torn.tlrd
try 'train on a torn dataset' 1 '' 'tlr: torn.tlrd: dataset is cut short or damaged at byte *' "$tlr" train torn.tlrd -o x.bin
try 'train on something else' 1 '' 'tlr: sums.jsonl: is no dataset that tlr label wrote' "$tlr" train sums.jsonl -o x.bin
try 'train, deferral has its loss' 2 '' 'tlr: --loss: the deferral head *' train x.bin --policy deferral --loss bt
try 'train, odd weight' 2 '' "tlr: --pos-weight: expected auto or a number *, found 'much'*" train x.bin --pos-weight much
if [ -e x.bin ]; then fail 'a refused train leaves a file'; else pass; fi
# Killed between two checkpoints, it goes on to the same bits.
"$tlr" train both.tlrd -o long.bin --hidden 8 --epochs 400 --patience 400 --json >out 2>err || fail 'long train' "$(cat err)"
"$tlr" train both.tlrd -o killed.bin --hidden 8 --epochs 400 --patience 400 >killed.out 2>&1 &
killed=$! waited=0
while [ ! -e killed.bin.ckpt ] && [ $waited -lt 300 ] && kill -0 $killed 2>/dev/null; do sleep 0.02; waited=$((waited + 1)); done
kill -9 $killed 2>/dev/null
wait $killed 2>/dev/null
try 'a killed train goes on' 0 '{*' '*' "$tlr" train both.tlrd -o killed.bin --hidden 8 --epochs 400 --patience 400 --json
same 'a killed train ends with the same bits' long.bin killed.bin

# ---- eval and calibrate -----------------------------------------------------
"$tlr" convert "$folders/tiny-llama" -o large.bin --type q4 >out 2>err
i=0
while [ $i -lt 6 ]; do
    echo "{\"prompt\":\"the $i and the\",\"question\":\"q\",\"answerKey\":\"A\",\"choices\":{\"label\":[\"A\",\"B\"],\"text\":[\"one\",\"two\"]}}"
    i=$((i + 1))
done >dev.jsonl
eval_tiny() { "$tlr" eval dev.jsonl --task csqa --slm "$m" --llm model:large.bin --shots 0 -n 12 "$@"; }
points='.points | length == 4 and (map(.policy) == ["never", "always", "entropy", "random"])'
try 'eval --json' 0 '{*' '*' eval_tiny --policy entropy,random --tau 0.01 --json --svg eval.svg
cp out eval.json
json 'eval --json' eval.json '.task == "csqa" and .n == 6 and ('"$points"') and .costs.slm_ms > 0 and
    (.points | all(.n == 6 and .routed_share >= 0 and .routed_share <= 1 and .accuracy_low <= .accuracy
        and .accuracy <= .accuracy_high and .agreement >= 0 and .agreement <= 1 and .tau != null and .mean_tokens <= 12))
    and .points[0].routed_share == 0 and .points[1].routed_share == 1 and .points[1].agreement == 1'
if command -v python3 >/dev/null 2>&1; then
    try 'eval --svg' 0 '4 circles, 2 ends' '' python3 -c 'import xml.etree.ElementTree as t
s = "{http://www.w3.org/2000/svg}"
r = t.parse("eval.svg").getroot()
assert r.tag == s + "svg"
print(len(r.findall(s + "circle")), "circles,", sum(e.get("class") == "end" for e in r.iter()), "ends")'
else
    skip 'eval --svg: python3 is not installed'
fi
try 'eval --csv' 0 'policy,target_share,tau,routed_share,accuracy,*,n
never,0,0,0,*,6
always,1,1,1,*,6
entropy,,0.00*,6
random,,0.00*,6' '*' eval_tiny --policy entropy,random --tau 0.01 --csv
if [ "$(tr -dc ',\n' <out | sort -u | wc -l)" -eq 1 ]; then pass; else fail 'eval --csv: rows of unlike length' "$(cat out)"; fi
try 'eval for people' 0 'csqa, 6 items*| policy *| never *| always *| random *' '*' \
    eval_tiny --policy random --target-routed 30%
try 'eval --state' 0 '{*' '*' eval_tiny --policy entropy,random --tau 0.01 --json --state eval.state --jobs 2
if [ "$(wc -l <eval.state)" -eq 7 ]; then pass; else fail 'eval --state: expected 7 lines' "$(cat eval.state)"; fi
head -n 3 eval.state >cut.state
printf '{"item":4,' >>cut.state
try 'eval goes on' 0 '{*' '*cut.state: 2 of 6 items are there already*' \
    eval_tiny --policy entropy,random --tau 0.01 --json --state cut.state --jobs 1
printf '[%s,%s]' "$(cat eval.json)" "$(cat out)" >both.json
json 'eval goes on' both.json 'map(.points | map(del(.seconds))) | .[0] == .[1]'
try 'eval, another state' 1 '' 'tlr: eval.state: belongs to a run with another max-tokens*' \
    eval_tiny --policy entropy,random --tau 0.01 --state eval.state -n 13
try 'eval without a router' 2 '' 'tlr: policy mlp: needs a trained router*' eval_tiny --policy mlp --sweep
try 'eval without thresholds' 1 '' 'tlr: policy entropy: no router has thresholds*tlr calibrate*' \
    eval_tiny --policy entropy --sweep
try 'eval, no such policy' 2 '' "tlr: --policy: expected some of mlp, *, found 'luck'*" eval_tiny --policy luck --sweep
try 'eval, a wrong share' 2 '' "tlr: --shares: expected a share from 0%*found '7'*" \
    eval_tiny --policy random --sweep --shares 2%,7
echo '{"question":"q","answerKey":"A"}' >>dev.jsonl
try 'eval, a missing field' 1 '' 'tlr: dev.jsonl: line 7: *choices*' eval_tiny --policy random --sweep
head -n 6 dev.jsonl >six.jsonl
try calibrate 0 '| share *| mlp *| entropy *7.0% |*' '*' "$tlr" calibrate six.jsonl --shots 0 --slm "$m" \
    --llm model:rough.bin --router r1.bin -o r4.bin -n 12
try 'calibrate, a budget' 0 '{*' '' "$tlr" calibrate --slm "$m" --router r4.bin --latency-ms 855 --slm-ms 20 \
    --target-tok-s 12.523 --json
json 'calibrate, a budget' out '.budget.share > 0.0699 and .budget.share < 0.0701 and .budget.mlp >= 0 and
    (.thresholds | length == 64 and all(.entropy > 0)) and .positions > 500'
try 'eval with a router' 0 '{*' '*' eval_tiny --max-items 6 --router r4.bin --sweep --shares 5%,50% --json
json 'eval with a router' out '.points | length == 12 and all(.target_share != null and .tau != null) and
    (map(select(.policy == "entropy") | .p_value) | all(. > 0 and . <= 1))'
try 'eval, another model' 1 '' 'tlr: r4.bin: *' "$tlr" eval six.jsonl --task csqa --slm rough.bin --llm "model:$m" \
    --router r4.bin --sweep
try 'router attach' 0 '' '*two.bin: carries the mlp router of r4.bin*' "$tlr" router attach "$m" r4.bin -o two.bin
try 'router show' 0 'two.bin: mlp router for hidden states of width 64*, this one*entropy*' '' "$tlr" router show two.bin
try 'router show --json' 0 '{*' '' "$tlr" router show two.bin --json
json 'router show --json' out '.kind == "mlp" and .fits and (.calibration.tau | has("mlp") and has("entropy"))'
fields 'router show --json' out . kind dim features hidden temperature fingerprint fits calibration info
try 'router detach' 0 '' '*' "$tlr" router detach two.bin r5.bin -o one.bin
same 'router detach gives the model back' "$m" one.bin
same 'router detach gives the router back' r4.bin r5.bin
try 'router attach, another model' 1 '' 'tlr: r4.bin: *' "$tlr" router attach rough.bin r4.bin
try 'router show without one' 1 '' 'tlr: *one.bin: carries no router*' "$tlr" router show one.bin
try 'router, no such action' 2 '' "tlr: ACTION: expected attach, detach, show or import, found 'eat'*" \
    "$tlr" router eat two.bin
try 'router import' 1 '' 'tlr: *citer.safetensors: *' "$tlr" router import \
    "$here/tests/golden/router/citer.safetensors" --for "$m" -o r6.bin
try 'router import without a model' 2 '' 'tlr: import: needs --for MODEL*' "$tlr" router import x.safetensors -o r6.bin
try 'run with a router' 0 '{*' '*' "$tlr" run two.bin 'the and' --temp 0 -n 12 --llm model:large.bin \
    --target-routed 50% --json
json 'run with a router' out '.routing.policy == "mlp" and .routing.target_share == 0.5 and
    (.tokens | length) == .routing.positions and .routing.failed == 0 and
    (.tokens | all(.trust >= 0 and .trust <= 1 and (.from == "slm" or .from == "llm")))'
json 'run with a router: waits' out '.routing.calls == .routing.asked and .routing.speculate == 0 and
    .routing.exposed_ms <= .routing.wait_ms and .routing.hidden_ms == 0 and .routing.redone_tokens == 0 and
    (.tokens | map(select(.from == "llm")) | all(.exposed_ms >= 0 and .connect_ms == 0))'
cp out joint.json
try 'run --serial' 0 '{*' '*' "$tlr" run two.bin 'the and' --temp 0 -n 12 --llm model:large.bin \
    --target-routed 50% --json --serial
printf '[%s,%s]' "$(cat joint.json)" "$(cat out)" >both.json
json 'run --serial writes the same' both.json '.[0].ids == .[1].ids and .[0].routing.asked == .[1].routing.asked'
try 'run --speculate, no such number' 2 '' "tlr: *--speculate: expected off, max or a number*found '0.5'*" \
    "$tlr" run two.bin 'the' --llm model:large.bin --speculate 0.5
try 'run --lanes 5' 2 '' "tlr: --lanes: expected a whole number from 1 to 4, found '5'*" "$tlr" run two.bin 'the' --llm model:large.bin --lanes 5
try 'run --serial --speculate' 2 '' 'tlr: *--serial and --speculate*' "$tlr" run two.bin 'the' \
    --llm model:large.bin --serial --speculate max
try 'run --burst' 0 '{*' '*' "$tlr" run two.bin 'the and' --temp 0 -n 12 --llm model:large.bin \
    --target-routed 50% --json --burst 3
json 'run --burst: one question, three tokens' out '.routing.burst == 3 and .routing.calls == .routing.asked and
    .routing.llm_tokens > .routing.asked and .routing.llm_tokens <= 3 * .routing.asked and
    (.tokens | map(select(.from == "llm" and (.asked | not))) | length) == .routing.llm_tokens - .routing.asked'
try 'run --burst auto' 0 '{*' '*' "$tlr" run two.bin 'the and' --temp 0 -n 12 --llm model:large.bin --mode large \
    --json --burst auto
json 'run --burst auto' out '.routing.burst == "auto" and .routing.asked <= .routing.llm_tokens'
for n in 0 17 2x; do
    try "run --burst $n" 2 '' "tlr: *--burst: expected auto or a number*found '$n'*" \
        "$tlr" run two.bin 'the' --llm model:large.bin --burst "$n"
done
try 'run --burst, nobody to ask' 2 '' 'tlr: *--burst: found no large model*' "$tlr" run two.bin 'the' --burst 2
try 'eval has no --burst' 2 '' 'tlr: *--burst*' "$tlr" eval q.jsonl --task csqa --slm two.bin \
    --llm model:large.bin --burst 2
try 'run large only' 0 '{*' '*' "$tlr" run two.bin 'the and' --temp 0 -n 12 --llm model:large.bin --mode large --json
json 'run large only' out '.tokens | all(.from == "llm")'
cp out large.json
"$tlr" run large.bin 'the and' --temp 0 -n 12 --json >out 2>err
printf '[%s,%s]' "$(cat large.json)" "$(cat out)" >both.json
json 'run large only writes what the large model alone does' both.json '.[0].text == .[1].text'
printf 'the and\nand the\n' >talk.txt; in=talk.txt
"$tlr" chat large.bin --temp 0 -n 12 <talk.txt >large_chat 2>/dev/null
try 'chat, asking for every token' 0 '?*' '*policy always*' "$tlr" chat two.bin --temp 0 -n 12 --stats \
    --llm model:large.bin --policy always
same 'it is the chat of the large model' out large_chat
try 'chat with a router' 0 '?*' '*policy mlp*asked for*' "$tlr" chat two.bin --temp 0 -n 12 --stats \
    --llm model:large.bin --target-routed 50%
head -n 1 out >first
"$tlr" run two.bin 'the and' --temp 0 -n 12 --llm model:large.bin --target-routed 50% 2>/dev/null | head -n 1 >one
same 'its first reply is that of run' first one
in=/dev/null
try 'chat --mode large' 2 '' "tlr: --mode: expected joint or small, found 'large'*" "$tlr" chat two.bin --mode large
try 'run --explain without a large model' 0 '*' 'token *trust *' "$tlr" run two.bin 'the and' --temp 0 -n 12 --explain
try 'run, a share without thresholds' 1 '' 'tlr: *tlr calibrate*' "$tlr" run "$m" 'the and' \
    --llm model:large.bin --policy entropy --target-routed 7%
try 'run, a large model with another vocabulary' 1 '' 'tlr: *q2.bin: *the same tokenizer*' "$tlr" run two.bin 'the' \
    --llm model:q2.bin
try 'calibrate without a router' 1 '' 'tlr: *tiny.bin: carries no router*' "$tlr" calibrate --slm "$m"

# ---- a server as the large model: what holds without one --------------------
# Port 1 of this machine is closed, so a question fails at once.
none=http://127.0.0.1:1
ask() { "$tlr" run "$m" 'the and' --temp 0 -n 6 --policy random --tau 1 "$@"; }
"$tlr" run "$m" 'the and' --temp 0 -n 6 >plain.txt 2>err
try 'a server that is not there' 0 '*' 'tlr: *127.0.0.1:1: *begins alone*gave no answer for 6 of 6*' ask --llm $none
if cmp -s out plain.txt; then pass; else fail 'the small model goes on alone' "$(cat out)"; fi
try 'its failures are counted' 0 '{*' '*' ask --llm $none --json
json 'its failures are counted' out '.routing.failed == 6 and .routing.asked == 6 and .routing.llm_tokens == 0 and
    .network.requests > 0 and .network.failed == 6 and .network.sent_tokens == 0 and (.tokens | all(.from == "slm"))'
try '--require-llm' 1 '*' 'tlr: *127.0.0.1:1: *' ask --llm $none --require-llm
try '--mode large without the large one' 1 '*' 'tlr: *127.0.0.1:1: *' ask --llm $none --mode large
for verb in "eval sums.jsonl --task gsm8k --slm $m --tau 1" "label sums.jsonl --task gsm8k --slm $m -o never.tlrd"; do
    # shellcheck disable=SC2086
    try "$verb without the large one" 1 '' 'tlr: *127.0.0.1:1: *' "$tlr" $verb --llm $none
done
try '--offline' 2 '' 'tlr: --offline: *' ask --llm $none --offline
try '--offline with a file' 0 '*' '*' ask --llm "model:$m" --offline
try 'http to another machine' 2 '' 'tlr: --llm: example.com: *in the clear*' ask --llm http://example.com
try 'another scheme' 2 '' 'tlr: --llm: *http*' ask --llm ftp://127.0.0.1/x
try 'a password in the address' 2 '' 'tlr: --llm: the address: *' ask --llm http://me:secret@127.0.0.1:1
if grep -q secret err; then fail 'the password is repeated'; else pass; fi
try 'no certificates' 1 '' 'tlr: --cacert: none.pem: *' ask --llm https://127.0.0.1:1 --cacert none.pem
try '--insecure is loud' 0 '*' '*certificate is NOT checked*' ask --llm https://127.0.0.1:1 --insecure
printf 'sesame\n' >key.txt
chmod 644 key.txt
try 'a key that others may read' 2 '' 'tlr: --llm-key-file: key.txt: *chmod 600*' ask --llm $none --llm-key-file key.txt
chmod 600 key.txt
try 'a key of its own' 0 '*' '*127.0.0.1:1*' ask --llm $none --llm-key-file key.txt --audit sent.jsonl --stats
try 'a key in the environment' 0 '*' '*127.0.0.1:1*' env TLR_API_KEY=sesame "$tlr" run "$m" 'the and' --temp 0 -n 6 \
    --policy random --tau 1 --llm $none --audit sent.jsonl --stats
if grep -q sesame out err sent.jsonl; then fail 'the key shows'; else pass; fi
json '--audit' sent.jsonl '.host == "127.0.0.1:1" and .path == "/v1/models" and .tokens == 0'
case $(ls -l sent.jsonl) in -rw-------*) pass ;; *) fail "--audit's file is open to others" ;; esac
try 'a key with a blank' 2 '' 'tlr: the key: *' env TLR_API_KEY='se same' "$tlr" run "$m" 'the' --policy random \
    --tau 1 --llm $none
try 'a price without its half' 2 '' 'tlr: --llm-price: *' ask --llm $none --llm-price 3
try 'a cost without a price' 2 '' 'tlr: --llm-max-cost needs --llm-price*' ask --llm $none --llm-max-cost 3

# ---- perplexity and bench ---------------------------------------------------
try perplexity 0 'perplexity [0-9]*' '*' "$tlr" perplexity "$m" "$folders/make.py" --ctx 128
in=$folders/make.py
try 'perplexity --json' 0 '{*' '*' "$tlr" perplexity "$m" - --ctx 128 --json --chunks 3
json 'perplexity --json' out '.ppl > 1 and .tokens == 3 * 63 and .windows == 3 and (.ppl | log) - .nll < 1e-6'
fields 'perplexity --json' out . ppl ppl_error nll tokens windows ctx all tok_s
in=/dev/null
try 'perplexity --all' 0 '{*' '*' "$tlr" perplexity "$m" "$folders/make.py" --ctx 128 --json --chunks 3 --all
json 'perplexity --all' out '.tokens == 3 * 127 and .all'
try 'perplexity --logits' 0 '{*' '*' \
    "$tlr" perplexity "$m" "$folders/make.py" --ctx 128 --json --chunks 2 --logits logits
n_vocab=$(($(wc -c <logits) / 126 / 4 - 1))
if [ "$(wc -c <logits)" -eq $((126 * 4 * (n_vocab + 1))) ] && [ $n_vocab -gt 256 ]; then pass; else
    fail "logits: expected 126 ids and their rows, found $(wc -c <logits) bytes"
fi
"$tlr" tokenize "$m" "$(cat "$folders/make.py")" | tr ' ' '\n' | grep . | sed -n 66p >expected
od -An -tu4 -N4 logits | tr -d ' ' >first
same 'the first id that is predicted' first expected
try 'perplexity --logits, no folder' 1 '' 'tlr: no/such: *' \
    "$tlr" perplexity "$m" "$folders/make.py" --ctx 128 --chunks 2 --logits no/such
try 'perplexity --logits, a device' 1 '' 'tlr: /dev/full: expected a regular file*' \
    "$tlr" perplexity "$m" "$folders/make.py" --ctx 128 --chunks 2 --logits /dev/full
no_temporaries
try 'text too short' 1 '' 'tlr: *prompt: has * tokens, and one window takes 128*' "$tlr" perplexity "$m" prompt --ctx 128
try 'bench --json' 0 '{*' '*' "$tlr" bench "$m" -p 16 -n 8 -r 2 -d 4 --branches 3 --sessions 3 --json
json 'bench --json' out '.prefill_tok_s > 0 and .decode_tok_s > 0 and .stream_gb_s > 0 and .read_gb_s > 0
    and .weight_bytes_per_token > 0 and .peak_rss_bytes > 0 and .load_ms > 0 and .ttft_ms > 0 and .branch_ratio > 0'
fields 'bench --json' out . model type processor threads cpu n_prompt n_gen depth reps kv act ctx \
    prefill_tok_s prefill_sd prefill_median prefill_min prefill_max \
    decode_tok_s decode_sd decode_median decode_min decode_max weight_bytes_per_token read_gb_s stream_gb_s \
    read_share peak_rss_bytes load_ms ttft_ms first_token_ms branches branch_ratio sessions
json 'bench says what it did' out '.n_prompt == 16 and .n_gen == 8 and .reps == 2 and .depth == 4 and .branches == 3 and ([.sessions[].sessions] == [1, 2, 3]) and ([.sessions[].decode_tok_s] | min > 0)'
json 'bench spreads' out '.prefill_min <= .prefill_median and .prefill_median <= .prefill_max and
    .decode_min <= .decode_tok_s and .decode_tok_s <= .decode_max and .first_token_ms > 0 and .act == "int16"'
try 'bench --profile' 0 '{*' '*' "$tlr" bench "$m" -p 16 -n 8 -r 2 --profile --act int16 --kv f32 --ctx 99 --json
json 'bench --profile' out 'def whole: (.ops | add) as $o | ([.layers[], .outside] | map(add) | add) as $l
    | .total_ms > 0 and ($o / .total_ms - 1 | fabs) < 1e-6 and ($l / .total_ms - 1 | fabs) < 1e-6;
    (.prefill_profile | whole and .tokens == 32) and (.decode_profile | whole and .steps == 16)
    and .act == "int16" and .kv == "f32" and .ctx == 99'
try 'bench --profile for people' 0 '*pp16*tg8*prefill: *2 steps of 32 tokens*attend*total*by layer:*layer 0*outside*total*decode: *16 steps of 16 tokens*head*outside*total*' '*' \
    "$tlr" bench "$m" -p 16 -n 8 -r 2 --profile
try 'bench decode alone' 0 '*tg4 @ d64*per token*' '' "$tlr" bench "$m" -p 0 -n 4 -r 1 -d 64
case $(cat out) in *pp*) fail 'no prefill was asked for' "$(cat out)" ;; *) pass ;; esac
try 'bench decode alone, JSON' 0 '{*' '' "$tlr" bench "$m" -p 0 -n 4 -r 1 -d 64 --json
json 'bench decode alone, JSON' out '.prefill_tok_s == null and .ttft_ms == null and .decode_median > 0 and .read_share > 0'
try 'bench prefill alone' 0 '*pp8 *peak*' '' "$tlr" bench "$m" -p 8 -n 0 -r 1
case $(cat out) in *' tg'*|*'per token'*) fail 'no decoding was asked for' "$(cat out)" ;; *) pass ;; esac
try 'bench prefill alone, JSON' 0 '{*' '' "$tlr" bench "$m" -p 8 -n 0 -r 1 --profile --json
json 'bench prefill alone, JSON' out '.decode_tok_s == null and .read_gb_s == null and .decode_profile == null
    and .prefill_median > 0 and .prefill_profile.total_ms > 0 and .branch_profile == null'
try 'bench --branches --profile' 0 '*decode: *branches: *4 steps of 8 tokens*head*outside*total*' '*' \
    "$tlr" bench "$m" -p 0 -n 4 -r 1 --branches 2 --profile
try 'run --profile' 0 '?*' '*prefill: *attend*layer 0*total*decode: *gate_up*outside*total*' \
    "$tlr" run "$m" prompt -n 4 --profile
try 'run --profile --json' 0 '{*' '' "$tlr" run "$m" prompt -n 4 --temp 0 --profile --json
json 'run --profile --json' out 'def whole: (.ops | add) as $o | .total_ms > 0 and ($o / .total_ms - 1 | fabs) < 1e-6;
    (.prefill_profile | whole and .tokens > 0) and (.decode_profile | whole) and .first_token_ms > 0'
try 'bench --kernels' 0 '*slot*rmsnorm*ref*896*hot*cold*fills the slot*' '*' \
    "$tlr" bench --kernels --op rmsnorm --seconds 0.1
try 'bench --kernels --json' 0 '{*' '*' "$tlr" bench --kernels --op rmsnorm --seconds 0.1 --svg roof.svg --json
json 'bench --kernels --json' out '.read_gb_s > 0 and .float_gflop_s > 0 and (.rows | length) >= 2
    and ([.rows[] | .ns > 0 and .gb_s > 0 and .gop_s > 0 and .roofline_share > 0 and .ns_min <= .ns
          and .ratio_to_ref > 0] | all)
    and ([.rows[] | select(.variant == "ref") | .ratio_to_ref == 1] | length > 0 and all)
    and ([.rows[] | select(.chosen) | .state] | sort) == ["cold", "hot"]'
fields 'bench --kernels --json' out . processor cpu threads read_gb_s float_gflop_s int_gop_s counters too_large \
    untimed_slots rows
fields 'a row of it' out '.rows[0]' slot variant chosen shape rows cols tokens state ns ns_min ns_max bytes ops gb_s \
    gop_s gop_unit roofline_share ratio_to_ref cycles instructions llc_misses
case $(cat roof.svg) in '<svg '*rmsnorm*'</svg>') pass ;; *) fail 'roofline plot' "$(head -c 200 roof.svg)" ;; esac
try 'bench --kernels --csv' 0 'slot,variant,*rmsnorm,ref,*' '*' "$tlr" bench --kernels --op rmsnorm --seconds 0.1 --csv
try 'bench --kernels --op attend' 0 '{*' '*' "$tlr" bench --kernels --op attend --seconds 0.1 --json
json 'bench --kernels --op attend' out '.untimed_slots == 0 and ([.rows[].slot] | unique | length) == 4 and
    ([.rows[] | select(.tokens > 1) | .rows] | unique) == [256]'
try 'bench --kernels, no slot' 2 '' "tlr: --op: no slot begins with 'nosuch'*" "$tlr" bench --kernels --op nosuch
try 'bench --kernels --md, no folder' 1 '*| slot *|---|*| rmsnorm *' '*no/such/x.svg*' \
    "$tlr" bench --kernels --op rmsnorm --seconds 0.1 --md --svg no/such/x.svg
try 'bench --kernels --list' 0 '*rmsnorm *of ref*' '' "$tlr" bench --kernels --list
try 'bench --kernels --list --json' 0 '{*' '' "$tlr" bench --kernels --list --json
json 'bench --kernels --list --json' out '.slots.rmsnorm != null and (.slots | length) > 10'
try 'bench --kernels --list, TLR_CPU' 0 '{*' '' env TLR_CPU=ref "$tlr" bench --kernels --list --json
json 'bench --kernels --list, TLR_CPU' out '.cpu == "ref" and ([.slots[]] | unique) == ["ref"]'
try 'bench --kernels --cpu' 0 '{*' '*' "$tlr" bench --kernels --op rmsnorm --seconds 0.1 --cpu ref --json
json 'bench --kernels --cpu' out '.cpu == "ref" and ([.rows[] | .variant == "ref" and .chosen] | all)'
try 'bench --random' 0 '*pp16*tg8*per token*' '*' "$tlr" bench --random tiny-qwen3 --type q4 -p 16 -n 8 -r 1
try 'bench nothing' 1 '' 'tlr: *' "$tlr" bench --random nosuch

# ---- interrupts -------------------------------------------------------------
dfl=
if env --default-signal=INT true 2>/dev/null; then dfl='env --default-signal=INT'; fi
# interrupt READY-COMMAND SIGNAL COMMAND...: sends the signal when the ready
# command succeeds; exit status to rc.
interrupt() {
    ready=$1 signal=$2
    shift 2
    rm -f pid
    (
        i=0
        until [ -s pid ] && sh -c "$ready" >/dev/null 2>&1; do
            i=$((i + 1)); [ $i -gt 600 ] && break
            sleep 0.05
        done
        kill "-$signal" "$(cat pid)"
    ) &
    # shellcheck disable=SC2086
    $dfl sh -c 'echo $$ >pid; exec "$@"' sh "$@" >out 2>err </dev/null
    rc=$?
    wait
}
cp q2.bin old.bin
interrupt 'ls .old.bin.tmp-*' TERM "$tlr" convert random:qwen2.5-0.5b -o old.bin --type q8
if [ $rc -eq 1 ] && grep -q "tlr: interrupted.*nothing was written" err; then pass; else fail "convert, interrupted: $rc" "$(cat err)"; fi
same 'an interrupted convert leaves the old model' old.bin q2.bin
no_temporaries
interrupt 'grep -q perplexity err' INT "$tlr" perplexity "$m" big --ctx 512
if [ $rc -eq 1 ] && grep -qx "tlr: interrupted" err; then pass; else fail "perplexity, interrupted: $rc" "$(cat err)"; fi
label whole.tlrd --completion-tokens 400 --completions 9 >out 2>err
interrupt 'test -s stopped.tlrd' INT "$tlr" label sums.jsonl --task gsm8k --slm "$m" --llm "model:$m" -o stopped.tlrd \
    --completion-tokens 400 --completions 9
if [ $rc -eq 1 ] && grep -q "tlr: interrupted: stopped.tlrd: holds [0-9]* of 40 questions; the same command goes on" err
then pass; else fail "label, interrupted: $rc" "$(cat err)"; fi
label stopped.tlrd --completion-tokens 400 --completions 9 >out 2>err
same 'a stopped label goes on' stopped.tlrd whole.tlrd
if [ -f "$real" ]; then
    interrupt 'test -s out' INT "$tlr" run "$real" 'Write a very long story about a river.' -n 4000
    if [ $rc -eq 0 ] && grep -q cancelled err && [ "$(tail -c 1 out | od -An -tu1)" -eq 10 ]; then pass; else
        fail "run, interrupted: $rc" "$(cat err)"
    fi
    # The whole conversation spelled out gives the reply of a chat that kept
    # its cache.
    printf 'What is the capital of France?\nAnd of Italy?\n' >talk.txt
    "$tlr" chat "$real" --temp 0 -n 40 --system 'Be brief.' <talk.txt >out 2>err
    "$tlr" run "$real" 'What is the capital of France?' --temp 0 -n 40 --system 'Be brief.' >first 2>err
    { printf '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n'
      printf '%s<|im_end|>\n<|im_start|>user\nAnd of Italy?<|im_end|>\n<|im_start|>assistant\n' "$(cat first)"; } >talk.txt
    "$tlr" run "$real" - --raw --temp 0 -n 40 <talk.txt >second 2>err
    cat first second >both
    same 'chat is the conversation sent at once' out both
    try 'the capital of France' 0 '*"text": " Paris*' '' "$tlr" run "$real" 'The capital of France is' --raw --temp 0 -n 8 --json
else
    skip 'run, interrupted: needs the real model (make demo)'
    skip 'chat is the conversation sent at once: needs the real model'
    skip 'the capital of France: needs the real model'
fi

if [ "$skipped" -gt 0 ] && [ -n "${TLR_NO_SKIP:-}" ]; then
    echo "cli: $skipped skipped, and TLR_NO_SKIP is set"
    failed=$((failed + 1))
fi
echo "cli: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]

#!/bin/sh
# Builds one fuzz target with clang's libFuzzer, ASan and UBSan and runs it for some seconds
# from the seeds in corpus/TARGET. What it finds stays in a folder whose name is printed.
#
#     tests/fuzz/run.sh TARGET SECONDS      commit, table, header, size, config
#     tests/fuzz/run.sh TARGET seeds        writes the seeds anew
#
# Exit: 0 nothing found; 1 found; 2 no such target; 77 no clang or no libFuzzer here, with the
# reason (a failure where STRATA_TEST_FAIL_ON_SKIP=1).
set -eu

[ $# -eq 2 ] || {
    echo "usage: $0 TARGET SECONDS|seeds" >&2
    exit 2
}
target=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"

format="io/store_format.c base/hash.c base/error.c"
case $target in
commit | table | header)
    sources=$format
    libs=-lxxhash
    ;;
size)
    sources="base/text.c base/error.c"
    libs=
    ;;
config)
    sources="train/decoder_config.c train/decoder_named.c train/config_reader.c
        train/config_rope.c train/family_llama.c train/family_mistral.c train/family_qwen2.c
        train/family_qwen3.c base/json.c base/text.c base/error.c"
    libs="-ljansson -lm"
    ;;
*)
    echo "run.sh: no target $target" >&2
    exit 2
    ;;
esac

skip() {
    echo "skipped: $1"
    [ "${STRATA_TEST_FAIL_ON_SKIP:-}" = 1 ] && exit 1
    exit 77
}

work=$(mktemp -d "${TMPDIR:-/tmp}/strata-fuzz.XXXXXX")
trap 'rm -rf "$work"' EXIT
clang=${CLANG:-clang}
command -v "$clang" >/dev/null || skip "no $clang: sudo apt-get install clang"
echo 'int LLVMFuzzerTestOneInput(const char *, long);
int LLVMFuzzerTestOneInput(const char *data, long bytes) { return !data && bytes; }' \
    >"$work/probe.c"
sanitize=-fsanitize=fuzzer,address,undefined
"$clang" $sanitize "$work/probe.c" -o "$work/probe" 2>"$work/log" ||
    skip "$clang has no libFuzzer: sudo apt-get install libclang-rt-14-dev, or what fits it"

# shellcheck disable=SC2086
"$clang" -std=c17 -g -O1 -Wall -Wextra -I. -Iinclude $sanitize -fno-sanitize-recover=all \
    "tests/fuzz/fuzz_$target.c" tests/fuzz/fuzz.c $sources -o "$work/fuzz" $libs -pthread

if [ "$2" = seeds ]; then
    mkdir -p "tests/fuzz/corpus/$target"
    exec "$work/fuzz" "--seeds=tests/fuzz/corpus/$target"
fi

# What is new goes to the first folder: the seeds stay as they are.
mkdir "$work/new" "$work/found"
if "$work/fuzz" -max_total_time="$2" -max_len=20000 -timeout=10 -rss_limit_mb=2048 \
    -print_final_stats=1 -verbosity=0 -artifact_prefix="$work/found/" "$work/new" \
    "tests/fuzz/corpus/$target" >"$work/log" 2>&1; then
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log")
    echo "$target: ${runs:-0} inputs in $2 s, nothing found"
    exit 0
fi
cat "$work/log"
trap - EXIT
echo "$target: found something: $work/found"
exit 1

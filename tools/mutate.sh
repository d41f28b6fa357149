#!/bin/sh
# Do the tests notice when a safeguard of the store is gone? Copies the tree, switches off one
# safeguard after the other as tools/mutations.txt says, builds what that changes, runs the
# tests that are named there, and expects one to fail. Prints what caught each, as a table.
#
#     tools/mutate.sh [WORDS]      only mutations whose name has these words
#
# Exit: 0 all caught; 1 some survived; 2 the list does not fit the sources, or a test fails
# without any mutation.
set -eu
export LC_ALL=C
root=$(cd "$(dirname "$0")/.." && pwd)
only=${1:-}
work=$(mktemp -d "${TMPDIR:-/tmp}/strata-mutate.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/tree" "$work/objects" "$work/run"
(cd "$root" && tar cf - include base optim io offload engine tests/support tests/io \
    tests/offload tests/engine tests/CMakeLists.txt tools/mutations.txt) |
    tar xf - -C "$work/tree"
cd "$work/tree"

flags="-std=c17 -g -O1 -ffp-contract=off -pthread -I. -Iinclude"
libs="-lcriterion -lhwloc -ljansson -lxxhash -luring -lm -pthread"
# Seconds until a test counts as hung, which is one way to fail.
limit=300

object() { # FILE: its object's name
    echo "$work/objects/$(echo "${1%.c}" | tr / _).o"
}

compile() { # FILE
    # shellcheck disable=SC2086
    cc $flags -w -c "$1" -o "$(object "$1")"
}

stop() {
    echo "mutate: $1" >&2
    exit 2
}

wraps() { # TEST: the linker's options for what its line in tests/CMakeLists.txt wraps
    tr '\n' ' ' <tests/CMakeLists.txt | tr ')' '\n' |
        sed -n "s|.*strata_test($1\.c .*WRAP \([a-z_ ]*\).*|\1|p" |
        tr -s ' ' '\n' | sed -n 's/^..*/-Wl,--wrap=&/p'
}

link() { # TEST: a program of it, and of all objects that are no test
    # shellcheck disable=SC2086,SC2046
    cc "$(object "tests/$1.c")" $(ls "$work"/objects/*.o | grep -v '/tests_[a-z]*_test_') \
        -o "$work/run/$(basename "$1")" $(wraps "$1") $libs
}

run() { # TEST:FILTER: 0 if it passes; its story is in $work/log
    link "${1%%:*}" || stop "${1%%:*} does not link"
    (cd "$work/run" && timeout "$limit" "./$(basename "${1%%:*}")" --filter "${1#*:}") \
        >"$work/log" 2>&1
}

# What failed: the tests' names, or that it hung.
story() { # STATUS
    names=$(sed -n 's/.*\[FAIL\] [a-z_]*::\([a-z0-9_]*\).*/\1/p' "$work/log" | sort -u |
        head -3 | paste -s -d ' ' | sed 's/ /, /g')
    [ "$1" -ne 124 ] || names="no answer for $limit s"
    echo "${names:-exit $1}"
}

block() { # N: the N-th mutation's lines
    awk -v n="$1" 'BEGIN { RS = "" } /^name:|\nname:/ { if (++i == n) print }' \
        tools/mutations.txt | grep -v '^#'
}

field() { # KEY: all its values in $work/block
    sed -n "s/^$1: //p" "$work/block"
}

# Without CUDA, whether there is a toolkit or not.
for file in base/*.c optim/*.c io/*.c offload/*/*.c engine/*.c tests/support/*.c \
    optim/absent/cuda.c offload/device/absent/device_cuda.c; do
    case $file in
    tests/support/program.c | tests/support/profiles.c | tests/support/decoder_rig.c | \
        offload/device/device_cuda.c)
        continue
        ;;
    esac
    compile "$file" || stop "$file does not compile"
done
for test in $(sed -n 's/^test: \([^:]*\):.*/\1/p' tools/mutations.txt | sort -u); do
    compile "tests/$test.c" || stop "tests/$test.c does not compile"
done
if [ -z "$only" ]; then
    for test in $(sed -n 's/^test: //p' tools/mutations.txt | sort -u); do
        run "$test" || stop "$test fails without any mutation: $(story $?)"
    done
fi

echo "| switched off | where | caught by |"
echo "|---|---|---|"
count=0
survived=0
number=1
while block "$number" >"$work/block" && [ -s "$work/block" ]; do
    number=$((number + 1))
    name=$(field name)
    file=$(field file)
    case $name in *"$only"*) ;; *) continue ;; esac
    cp "$file" "$work/before.c"
    field edit >"$work/edits"
    while read -r edit; do
        cp "$file" "$work/last.c"
        sed -i "$edit" "$file"
        ! cmp -s "$file" "$work/last.c" || stop "$name: an edit changes nothing in $file"
    done <"$work/edits"
    compile "$file" 2>"$work/log" || stop "$name: does not compile: $(head -1 "$work/log")"
    caught=
    for test in $(field test); do
        status=0
        run "$test" || status=$?
        [ "$status" -eq 0 ] || {
            caught="${test%%:*}: $(story "$status")"
            break
        }
    done
    count=$((count + 1))
    [ -n "$caught" ] || survived=$((survived + 1))
    echo "| $name | \`$file\` | ${caught:-**nothing**} |"
    cp "$work/before.c" "$file"
    compile "$file"
done
echo
echo "$count mutations, $survived survived."
[ "$survived" -eq 0 ] || exit 1

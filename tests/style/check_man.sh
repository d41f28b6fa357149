#!/bin/sh
# The manual pages' lists of options are what --help says, word for word. The tables of the
# programs own those texts; this puts them where `man` finds them.
#
#     check_man.sh ROOT BIN [fix]        BIN: where offload-train and offload-bench are
set -u
cd "$1" || exit 2
bin=$2
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT

# Help as roff. A line after an empty one names a section, unless it is a sentence, which has a
# colon, as those about usage and exit codes have, whose place in a page is elsewhere.
as_roff() {
    awk '
    { gsub(/\\/, "\\e"); gsub(/-/, "\\-") }
    /^usage:/ { if (NR > 1) exit; head = 1; next }
    /^$/ { head = 0; next }
    /^exit codes:/ { next }
    /  this text$/ { next }
    /^  \\-/ {
        gap = match(substr($0, 3), /  +/)
        left = substr($0, 3, gap - 1)
        right = substr($0, 3 + gap + RLENGTH - 1)
        name = left
        sub(/ .*/, "", name)
        argument = substr(left, length(name) + 1)
        gsub(/"/, "\\(dq", argument)
        print ".TP"
        if (argument == "")
            print ".B " name
        else
            print ".BI " name " \"" argument "\""
        print (right ~ /^[.\047]/ ? "\\&" : "") right
        next
    }
    head { print; next }
    /:/ { print ".PP\n" $0; next }
    { print ".SS " $0 }'
}

train_options() {
    "$bin/offload-train" --help | as_roff
}

bench_options() {
    for name in $("$bin/offload-bench" --help | awk '/^  [a-z]/ { print $1 }'); do
        echo ".SS $name"
        "$bin/offload-bench" "$name" --help | as_roff
    done
}

# check PROGRAM OPTIONS: the page with its options replaced is the page as it is.
failures=0
check() {
    page=docs/$1.1
    $2 >"$work/options" || failures=$((failures + 1))
    awk -v options="$work/options" '
    /^\.SH/ { inside = 0 }
    !inside { print }
    /^\.SH OPTIONS/ {
        inside = 1
        while ((getline line < options) > 0)
            print line
    }' "$page" >"$work/page"
    if [ "${fix:-}" = fix ]; then
        cp "$work/page" "$page"
    elif ! diff -u "$page" "$work/page"; then
        echo "$page: its options are not those of --help; put them there:" \
            "sh tests/style/check_man.sh . $bin fix"
        failures=$((failures + 1))
    fi
    # A word that man would not show as it is written.
    if command -v groff >/dev/null; then
        groff -man -ww -z "$page" 2>"$work/warnings"
        [ ! -s "$work/warnings" ] || { cat "$work/warnings"; failures=$((failures + 1)); }
    fi
}

fix=${3:-}
check offload-train train_options
check offload-bench bench_options
[ "$failures" -eq 0 ]

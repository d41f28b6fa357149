#!/bin/sh
# The layer test can fail: each forbidden arrow here, drawn in a copy of the tree, is seen.
#
#     check_layers_sees.sh ROOT
set -u
root=$1
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
status=0

arrow() { # FROM TO: a file, and the header that it must not include
    rm -rf "$work/tree"
    mkdir -p "$work/tree/$(dirname "$1")" "$work/tree/include/strata"
    printf '#include "%s"\n' "$2" >"$work/tree/$1"
    if sh "$root/tests/style/check_layers.sh" "$work/tree" >/dev/null; then
        echo "not seen: $1 includes $2"
        status=1
    fi
}

arrow offload/plan/plan.c offload/pager/pager.h
arrow offload/plan/plan.c offload/simulate/simulate.h
arrow offload/simulate/cost.c offload/pager/lanes.h
arrow offload/device/arena.c offload/plan/plan.h
arrow offload/schedule/schedule.h strata/engine.h
arrow io/store.c offload/plan/slots.h
arrow base/json.c io/io.h
arrow train/decoder.c offload/plan/plan.h
arrow engine/step.c train/decoder.h
arrow io/queue.c liburing.h
exit $status

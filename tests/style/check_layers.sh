#!/bin/sh
# Who may include whom. Reads the #include lines of every source and header and fails on an
# arrow that docs/design.md does not draw, and on a third-party header outside the one file that
# is allowed to see it.
#
#     check_layers.sh ROOT
set -u
cd "$1" || exit 2
files=$(find include/strata base io optim offload engine train bench examples \
    \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' \) 2>/dev/null |
    LC_ALL=C sort)

# shellcheck disable=SC2086
awk '
function allow(module, list,    i, n, parts) {
    n = split(list, parts, " ")
    for (i = 1; i <= n; i++)
        allowed[module, parts[i]] = 1
}
function fold(folder, list,    i, n, parts) {
    n = split(list, parts, " ")
    for (i = 1; i <= n; i++)
        folded[folder, parts[i]] = 1
}
# The folder of a path in offload.
function folder(path) {
    sub("^offload/", "", path)
    sub("/.*", "", path)
    return path
}
function bad(why) {
    printf "%s:%d: %s: %s\n", FILENAME, FNR, why, $0
    failures++
}
BEGIN {
    allow("include", "strata")
    allow("base", "strata base")
    allow("optim", "strata base optim")
    allow("io", "strata base io")
    allow("offload", "strata base io offload")
    allow("engine", "strata base optim io offload engine")
    allow("train", "strata base train")
    allow("bench", "strata base bench io offload")
    allow("examples", "strata")
    # Single headers beyond that.
    allowed["bench", "train/decoder.h"] = allowed["bench", "train/trainer.h"] = 1
    allowed["bench", "train/product.h"] = allowed["bench", "train/command_line.h"] = 1
    allowed["bench", "train/ops.h"] = allowed["bench", "train/document.h"] = 1
    allowed["bench", "train/report.h"] = allowed["bench", "train/outputs.h"] = 1
    allowed["bench", "engine/engine_internal.h"] = allowed["bench", "optim/record.h"] = 1
    allowed["bench", "engine/planning.h"] = 1
    allowed["bench", "train/attention_cudnn.h"] = allowed["bench", "train/cudnn_library.h"] = 1

    # Public headers that declare what lies above: what layers share stands in strata/types.h.
    above["strata/engine.h"] = above["strata/strata.h"] = " base io optim offload "

    # The folders of offload, each with those it stands on.
    fold("device", "device")
    fold("plan", "device plan")
    fold("schedule", "device plan schedule")
    fold("pager", "device plan schedule pager")
    fold("simulate", "device plan schedule simulate")

    home["hwloc.h"] = "base/topology.c"
    home["jansson.h"] = "base/json.c"
    home["xxhash.h"] = "base/hash.c"
    home["liburing.h"] = "io/io_uring.c"
    home["cblas.h"] = "train/product.c"
    home["cuda_runtime_api.h"] = home["cudaTypedefs.h"] = "offload/device/device_cuda.c"
    home["cublasLt.h"] = "train/products_cuda.c"
    home["cudnn_frontend.h"] = "train/attention_cudnn.cpp"

    # What a user of the public headers gets to see: the C standard library, and little of that.
    n = split("stdbool.h stddef.h stdint.h", names, " ")
    for (i = 1; i <= n; i++)
        plain[names[i]] = 1
}
/^[ \t]*#[ \t]*include/ {
    module = FILENAME
    sub("/.*", "", module)
    name = $0
    sub("^[ \t]*#[ \t]*include[ \t]*[<\"]", "", name)
    sub("[>\"].*", "", name)
    if ($0 ~ /"/) {
        target = name
        if (!sub("/.*", "", target))
            bad("a header is named with its module")
        else if (!((module, target) in allowed) && !((module, name) in allowed))
            bad(module " may not include " target)
        else if (module == "offload" && target == "offload" &&
            !((folder(FILENAME), folder(name)) in folded))
            bad(folder(FILENAME) " may not include offload/" folder(name))
        else if (name in above && index(above[name], " " module " "))
            bad(module " lies below " name)
    } else {
        base = name
        sub(".*/", "", base)
        third = base in home || name ~ /^(hwloc|openblas|cublas|cuda|nccl|mpi|cudnn)/
        # A .cu or .cuh file is what the runtime and its half types are for.
        kernel = FILENAME ~ /\.cuh?$/ && base ~ /^cuda_/
        if (third && !kernel && home[base] != FILENAME)
            bad("a third-party header outside its file")
        if (module == "include" && !(name in plain))
            bad("a public header includes the C standard library and strata/ only")
    }
}
END {
    printf "%d files, %d wrong includes\n", ARGC - 1, failures
    exit failures > 0
}
' $files

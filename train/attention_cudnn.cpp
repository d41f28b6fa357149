/*
 * Attention by cuDNN, through its C++ frontend, which consists of headers only. So this is the
 * only C++ file; its interface is C, and no exception leaves it.
 *
 * cuDNN's own C interface describes graphs of products and pointwise functions. The frontend
 * knows, for every version, which graph is a fused attention; we use it for that.
 *
 * The frontend calls libcudnn through our handle (its "dynamic loading"). It keeps the
 * addresses of functions forever, so libcudnn is opened once per process and never closed.
 *
 * A plan is for one shape and one set of strides, so calls on different groups of heads use
 * one plan with other addresses. Addresses are given in the order of the arrays' ids, so a
 * call needs no table.
 *
 * Thread: one per object.
 */

#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define NV_CUDNN_FRONTEND_DISABLE_LOGGING
#define CUDNN_FRONTEND_SKIP_JSON_LIB

#include "train/attention_cudnn.h"

#include <cmath>
#include <cstdio>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include <cudnn_frontend.h>

extern "C" {
#include "base/error.h"
}
#include "train/attention_sum.h"
#include "train/cudnn_library.h"

namespace fe = cudnn_frontend;

/* Where the frontend looks up libcudnn's functions. Written once, under the lock below. Weak:
 * other code with the same headers has one too. */
__attribute__((weak)) void *fe::cudnn_dlhandle = nullptr;

namespace
{

using graph_pointer = std::shared_ptr<fe::graph::Graph>;
using tensor_pointer = std::shared_ptr<fe::graph::Tensor_attributes>;

/* Ids of a plan's arrays, in the order in which a call gives their addresses. */
enum array { Q = 1, K, V, O, LSE, D_O, D_Q, D_K, D_V };
constexpr int forward_arrays = LSE;
constexpr int backward_arrays = D_V;

struct plans {
    attention_shape shape; /* resolved */
    attention_calls calls;
    graph_pointer forward;
    graph_pointer backward;
    attention_needs needs;
};

/* The process's libcudnn. */
struct process_library {
    std::mutex lock;
    cudnn_library library = {};
};

process_library &the_library()
{
    static process_library *library =
        new process_library; /* never freed: cuDNN's statics may use it at exit */
    return *library;
}

} // namespace

struct attention_cudnn {
    cudnnHandle_t handle = nullptr;
    int32_t sm = 0;
    std::shared_ptr<fe::DeviceProperties> described;
    std::vector<std::unique_ptr<plans>> prepared;
    std::string version;

    ~attention_cudnn()
    {
        if (handle != nullptr)
            (void)fe::detail::destroy_handle(handle);
    }
};

namespace
{

/* Returns what body returns; an exception of body fills error instead. */
template <typename Body>
strata_status guarded(strata_error *error, const char *what, Body body) noexcept
{
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return strata_fail(error, STRATA_E_NOMEM, 0, "cudnn: %s: no memory left", what);
    } catch (const std::exception &cause) {
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0, "cudnn: %s: %.180s", what,
                           cause.what());
    } catch (...) {
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0, "cudnn: %s failed", what);
    }
}

/* Put the frontend's refusal on one line. */
strata_status refused(strata_error *error, strata_status status, const char *what,
                      fe::error_t cause)
{
    std::string text = cause.get_message();
    for (char &letter : text)
        letter = letter == '\n' ? ' ' : letter;
    return strata_fail(error, status, static_cast<int64_t>(cause.get_code()),
                       "cudnn: %s: %.180s", what, text.c_str());
}

#define TRY_CUDNN(what, call)                                                                  \
    do {                                                                                       \
        fe::error_t try_cause = (call);                                                        \
        if (try_cause.is_bad())                                                                \
            return refused(error, STRATA_E_UNSUPPORTED, what, try_cause);                      \
    } while (0)

bool same_shape(const attention_shape &a, const attention_shape &b)
{
    return a.sequences == b.sequences && a.seq == b.seq && a.heads == b.heads &&
           a.kv_heads == b.kv_heads && a.head_dim == b.head_dim && a.window == b.window &&
           a.dtype == b.dtype && a.qkv_stride == b.qkv_stride && a.o_stride == b.o_stride;
}

/* One array of a call: sequences x heads x seq x head_dim, with rows `row` elements apart. */
tensor_pointer rows_of(const attention_shape &shape, array id, uint32_t sequences,
                       uint32_t heads, uint64_t row)
{
    int64_t seq = shape.seq;
    int64_t dim = shape.head_dim;
    int64_t stride = static_cast<int64_t>(row);
    auto tensor = std::make_shared<fe::graph::Tensor_attributes>();
    tensor->set_uid(id).set_dim({sequences, heads, seq, dim});
    tensor->set_stride({seq * stride, dim, stride, 1});
    return tensor;
}

void lay_out(const tensor_pointer &tensor, const tensor_pointer &as)
{
    tensor->set_output(true).set_uid(as->get_uid());
    tensor->set_dim(as->get_dim()).set_stride(as->get_stride());
}

tensor_pointer sums_of(const attention_shape &shape, uint32_t sequences, uint32_t heads)
{
    int64_t seq = shape.seq;
    auto tensor = std::make_shared<fe::graph::Tensor_attributes>();
    tensor->set_uid(LSE).set_dim({sequences, heads, seq, 1});
    tensor->set_stride({heads * seq, seq, 1, 1}).set_data_type(fe::DataType_t::FLOAT);
    return tensor;
}

graph_pointer empty_graph(const attention_cudnn &attention, const attention_shape &shape)
{
    auto graph = std::make_shared<fe::graph::Graph>();
    graph->set_io_data_type(shape.dtype == STRATA_BF16 ? fe::DataType_t::BFLOAT16
                                                       : fe::DataType_t::HALF);
    graph->set_intermediate_data_type(fe::DataType_t::FLOAT);
    graph->set_compute_data_type(fe::DataType_t::FLOAT);
    graph->set_sm_version(attention.sm);
    graph->set_cuda_graph_retention(fe::CudaGraphRetention_t::NONE);
    if (attention.described != nullptr)
        graph->set_device_properties(attention.described);
    return graph;
}

float scale_of(const attention_shape &shape)
{
    return 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
}

/* A window as long as the sequence is no window. */
bool has_window(const attention_shape &shape)
{
    return shape.window != 0 && shape.window < shape.seq;
}

/* All sequences and heads in one call: its workspace does not grow with their number. */
graph_pointer forward_graph(const attention_cudnn &attention, const attention_shape &shape)
{
    auto graph = empty_graph(attention, shape);
    uint32_t n = shape.sequences;
    auto q = graph->tensor(*rows_of(shape, Q, n, shape.heads, shape.qkv_stride));
    auto k = graph->tensor(*rows_of(shape, K, n, shape.kv_heads, shape.qkv_stride));
    auto v = graph->tensor(*rows_of(shape, V, n, shape.kv_heads, shape.qkv_stride));
    auto options = fe::graph::SDPA_attributes();
    options.set_name("forward").set_generate_stats(true).set_attn_scale(scale_of(shape));
    options.set_causal_mask(true);
    if (has_window(shape))
        options.set_diagonal_band_left_bound(static_cast<int>(shape.window));
    auto [o, lse] = graph->sdpa(q, k, v, options);
    lay_out(o, rows_of(shape, O, n, shape.heads, shape.o_stride));
    lay_out(lse, sums_of(shape, n, shape.heads));
    lse->set_data_type(fe::DataType_t::FLOAT);
    return graph;
}

graph_pointer backward_graph(const attention_cudnn &attention, const attention_shape &shape,
                             const attention_calls &calls)
{
    auto graph = empty_graph(attention, shape);
    uint32_t n = calls.sequences;
    uint64_t row = shape.qkv_stride;
    /* The parts of a key head's gradients lie in arrays of their own until they are added. */
    uint64_t kv_row = calls.parts > 1 ? shape.head_dim : row;
    auto q = graph->tensor(*rows_of(shape, Q, n, calls.heads, row));
    auto k = graph->tensor(*rows_of(shape, K, n, calls.kv_heads, row));
    auto v = graph->tensor(*rows_of(shape, V, n, calls.kv_heads, row));
    auto o = graph->tensor(*rows_of(shape, O, n, calls.heads, shape.o_stride));
    auto d_o = graph->tensor(*rows_of(shape, D_O, n, calls.heads, shape.o_stride));
    auto lse = graph->tensor(*sums_of(shape, n, calls.heads));
    auto options = fe::graph::SDPA_backward_attributes();
    options.set_name("backward").set_attn_scale(scale_of(shape)).set_causal_mask(true);
    options.set_deterministic_algorithm(true);
    if (has_window(shape))
        options.set_diagonal_band_left_bound(static_cast<int>(shape.window));
    auto [d_q, d_k, d_v] = graph->sdpa_backward(q, k, v, o, d_o, lse, options);
    lay_out(d_q, rows_of(shape, D_Q, n, calls.heads, row));
    lay_out(d_k, rows_of(shape, D_K, n, calls.kv_heads, kv_row));
    lay_out(d_v, rows_of(shape, D_V, n, calls.kv_heads, kv_row));
    return graph;
}

/* limit_bytes: plans that need more workspace are skipped. */
strata_status finish(const attention_cudnn &attention, fe::graph::Graph &graph,
                     const char *what, uint64_t limit_bytes, uint64_t *needed_bytes,
                     strata_error *error)
{
    TRY_CUDNN(what, graph.validate());
    TRY_CUDNN(what, graph.build_operation_graph(attention.handle));
    TRY_CUDNN(what, graph.create_execution_plans({fe::HeurMode_t::A}));
    TRY_CUDNN(what, graph.check_support());
    TRY_CUDNN(what, graph.build_plans());
    int64_t bytes = graph.get_workspace_size();
    *needed_bytes = bytes > 0 ? static_cast<uint64_t>(bytes) : 0;
    if (bytes < 0 || *needed_bytes > limit_bytes)
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                           "cudnn: %s: version %s needs %lld bytes of workspace, %llu are "
                           "planned: use version 9.19 to 9.28",
                           what, attention.version.c_str(), static_cast<long long>(bytes),
                           static_cast<unsigned long long>(limit_bytes));
    return STRATA_OK;
}

strata_status find_plans(attention_cudnn &attention, const attention_shape &asked,
                         const plans **out, strata_error *error)
{
    attention_shape shape = strata_attention_resolved(&asked);
    for (const auto &known : attention.prepared) {
        if (same_shape(known->shape, shape)) {
            *out = known.get();
            return STRATA_OK;
        }
    }
    auto made = std::make_unique<plans>();
    made->shape = shape;
    STRATA_TRY(strata_attention_calls(&made->calls, &shape, error));
    made->forward = forward_graph(attention, shape);
    STRATA_TRY(finish(attention, *made->forward, "attention", made->calls.workspace_bytes,
                      &made->needs.forward_bytes, error));
    made->backward = backward_graph(attention, shape, made->calls);
    STRATA_TRY(finish(attention, *made->backward, "attention's gradient",
                      made->calls.call_bytes, &made->needs.call_bytes, error));
    *out = made.get();
    attention.prepared.push_back(std::move(made));
    return STRATA_OK;
}

strata_status run(const attention_cudnn &attention, const fe::graph::Graph &graph,
                  const char *what, void **arrays, int count, void *workspace,
                  strata_error *error)
{
    fe::error_t cause = graph.execute(attention.handle, arrays, count, workspace);
    if (cause.is_bad())
        return refused(error, STRATA_E_DEVICE, what, cause);
    return STRATA_OK;
}

strata_status on_stream(const attention_cudnn &attention, void *stream, strata_error *error)
{
    if (attention.handle == nullptr)
        return strata_fail(error, STRATA_E_STATE, 0,
                           "cudnn: plans for a described device run nowhere");
    cudnnStatus_t cause =
        fe::detail::set_stream(attention.handle, static_cast<cudaStream_t>(stream));
    if (cause != CUDNN_STATUS_SUCCESS)
        return strata_fail(error, STRATA_E_DEVICE, cause, "cudnn: a stream was refused: %d",
                           static_cast<int>(cause));
    return STRATA_OK;
}

/* Element `offset` of an array of 2-byte elements. */
void *at(const void *array, uint64_t offset)
{
    return const_cast<uint16_t *>(static_cast<const uint16_t *>(array)) + offset;
}

/* The addresses of one backward call: which sequence and query head it begins with. */
struct backward_call {
    void *arrays[backward_arrays];
};

backward_call addresses(const attention_backward &args, const attention_shape &shape,
                        uint64_t sequence, uint64_t head)
{
    uint64_t sharing = shape.heads / shape.kv_heads;
    uint64_t q = sequence * shape.seq * shape.qkv_stride + head * shape.head_dim;
    uint64_t kv = sequence * shape.seq * shape.qkv_stride + head / sharing * shape.head_dim;
    uint64_t o = sequence * shape.seq * shape.o_stride + head * shape.head_dim;
    uint64_t sum = (sequence * shape.heads + head) * shape.seq;
    return {{at(args.q, q), at(args.k, kv), at(args.v, kv), at(args.o, o),
             const_cast<float *>(args.lse) + sum, at(args.d_o, o), at(args.d_q, q),
             at(args.d_k, kv), at(args.d_v, kv)}};
}

/* Run all parts of one key head, then add them. */
strata_status run_parts(const attention_cudnn &attention, void *stream, const plans &plans,
                        const attention_backward &args, uint64_t sequence, uint64_t head,
                        strata_error *error)
{
    const attention_shape &shape = plans.shape;
    uint64_t part_elems = static_cast<uint64_t>(shape.seq) * shape.head_dim;
    uint64_t parts_start = plans.calls.workspace_bytes - plans.calls.parts_bytes;
    void *d_k = static_cast<char *>(args.workspace) + parts_start;
    void *d_v = at(d_k, plans.calls.parts * part_elems);
    backward_call first = addresses(args, shape, sequence, head);
    for (uint64_t part = 0; part < plans.calls.parts; part++) {
        backward_call call = addresses(args, shape, sequence, head + part * plans.calls.heads);
        call.arrays[D_K - 1] = at(d_k, part * part_elems);
        call.arrays[D_V - 1] = at(d_v, part * part_elems);
        STRATA_TRY(run(attention, *plans.backward, "attention's gradient", call.arrays,
                       backward_arrays, args.workspace, error));
    }
    attention_sum sum = {first.arrays[D_K - 1], d_k,       shape.dtype,
                         plans.calls.parts,     shape.seq, shape.head_dim,
                         shape.qkv_stride};
    int cause = strata_cuda_attention_sum(stream, &sum);
    sum.dst = first.arrays[D_V - 1];
    sum.parts = d_v;
    if (cause == 0)
        cause = strata_cuda_attention_sum(stream, &sum);
    if (cause != 0)
        return strata_fail(error, STRATA_E_DEVICE, cause,
                           "cudnn: sum of a key head's gradients: %d", cause);
    return STRATA_OK;
}

strata_status run_backward(const attention_cudnn &attention, void *stream, const plans &plans,
                           const attention_backward &args, strata_error *error)
{
    const attention_calls &calls = plans.calls;
    uint32_t step = calls.heads * calls.parts;
    for (uint32_t sequence = 0; sequence < plans.shape.sequences; sequence += calls.sequences) {
        for (uint32_t head = 0; head < plans.shape.heads; head += step) {
            if (calls.parts > 1) {
                STRATA_TRY(run_parts(attention, stream, plans, args, sequence, head, error));
                continue;
            }
            backward_call call = addresses(args, plans.shape, sequence, head);
            STRATA_TRY(run(attention, *plans.backward, "attention's gradient", call.arrays,
                           backward_arrays, args.workspace, error));
        }
    }
    return STRATA_OK;
}

/* The current device's compute capability. */
strata_status current_device(attention_cudnn &attention, strata_error *error)
{
    int device = 0;
    int major = 0;
    int minor = 0;
    cudaError_t cause = cudaGetDevice(&device);
    if (cause == cudaSuccess)
        cause = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (cause == cudaSuccess)
        cause = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    if (cause != cudaSuccess)
        return strata_fail(error, STRATA_E_DEVICE, cause, "cudnn: no current device: %s",
                           cudaGetErrorString(cause));
    attention.sm = major * 10 + minor;
    cudnnStatus_t status = fe::detail::create_handle(&attention.handle);
    if (status != CUDNN_STATUS_SUCCESS)
        return strata_fail(error, STRATA_E_DEVICE, status,
                           "cudnn: version %s does not start on this device: status %d",
                           attention.version.c_str(), static_cast<int>(status));
    return STRATA_OK;
}

strata_status described_device(attention_cudnn &attention, const attention_target &target,
                               strata_error *error)
{
    const auto *text = reinterpret_cast<const uint8_t *>(target.device_json);
    std::vector<uint8_t> json(text, text + std::string(target.device_json).size());
    attention.sm = static_cast<int32_t>(target.sm);
    attention.described = std::make_shared<fe::DeviceProperties>();
    TRY_CUDNN("a device's description", attention.described->deserialize(json));
    return STRATA_OK;
}

strata_status open_library(attention_cudnn &attention, const char *dir, strata_error *error)
{
    process_library &process = the_library();
    std::lock_guard<std::mutex> held(process.lock);
    if (process.library.handle == nullptr) {
        STRATA_TRY(strata_cudnn_open(&process.library, dir, error));
        fe::cudnn_dlhandle = process.library.handle;
    }
    attention.version = process.library.version_text;
    return STRATA_OK;
}

} // namespace

const char *strata_attention_cudnn_absent(void)
{
    return nullptr;
}

strata_status strata_attention_cudnn_open(struct attention_cudnn **out,
                                          const struct attention_target *target,
                                          strata_error *error)
{
    *out = nullptr;
    return guarded(error, "opening", [&]() -> strata_status {
        auto attention = std::make_unique<attention_cudnn>();
        STRATA_TRY(open_library(*attention, target->library_dir, error));
        if (target->device_json != nullptr)
            STRATA_TRY(described_device(*attention, *target, error));
        else
            STRATA_TRY(current_device(*attention, error));
        *out = attention.release();
        return STRATA_OK;
    });
}

void strata_attention_cudnn_close(struct attention_cudnn *attention)
{
    delete attention;
}

const char *strata_attention_cudnn_version(const struct attention_cudnn *attention)
{
    return attention->version.c_str();
}

strata_status strata_attention_cudnn_prepare(struct attention_cudnn *attention,
                                             const struct attention_shape *shape,
                                             strata_error *error)
{
    struct attention_needs needs = {};
    return strata_attention_cudnn_needs(attention, shape, &needs, error);
}

strata_status strata_attention_cudnn_needs(struct attention_cudnn *attention,
                                           const struct attention_shape *shape,
                                           struct attention_needs *out, strata_error *error)
{
    return guarded(error, "building plans", [&]() -> strata_status {
        const plans *found = nullptr;
        STRATA_TRY(find_plans(*attention, *shape, &found, error));
        *out = found->needs;
        return STRATA_OK;
    });
}

strata_status strata_attention_cudnn_forward(struct attention_cudnn *attention, void *stream,
                                             const struct attention_forward *args,
                                             strata_error *error)
{
    return guarded(error, "attention", [&]() -> strata_status {
        const plans *found = nullptr;
        STRATA_TRY(find_plans(*attention, args->shape, &found, error));
        STRATA_TRY(on_stream(*attention, stream, error));
        void *arrays[forward_arrays] = {at(args->q, 0), at(args->k, 0), at(args->v, 0), args->o,
                                        args->lse};
        return run(*attention, *found->forward, "attention", arrays, forward_arrays,
                   args->workspace, error);
    });
}

strata_status strata_attention_cudnn_backward(struct attention_cudnn *attention, void *stream,
                                              const struct attention_backward *args,
                                              strata_error *error)
{
    return guarded(error, "attention's gradient", [&]() -> strata_status {
        const plans *found = nullptr;
        STRATA_TRY(find_plans(*attention, args->shape, &found, error));
        STRATA_TRY(on_stream(*attention, stream, error));
        return run_backward(*attention, stream, *found, *args, error);
    });
}

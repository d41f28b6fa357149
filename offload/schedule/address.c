/*
 * Addresses; see address.h.
 *
 * Thread: any; it only reads.
 */

#include "offload/schedule/address.h"

#include "base/error.h"

uint8_t *strata_address_home(const struct memory *memory, strata_part part, uint32_t tile)
{
    const struct homes *homes = &memory->plan->homes[part];
    uint8_t *arena = homes->tier[tile] == STRATA_DEVICE ? memory->device : memory->host;
    return arena + homes->at[tile];
}

uint8_t *strata_address_frame(const struct memory *memory, enum frame_kind kind, uint32_t index)
{
    return memory->host + memory->plan->frames_at[kind] +
           memory->plan->frame_stride[kind] * index;
}

uint8_t *strata_address_update_frame(const struct memory *memory, uint32_t index,
                                     strata_part part)
{
    return strata_address_frame(memory, FRAME_UPDATE, index) +
           memory->plan->update_frame_at[part];
}

uint8_t *strata_address_update(const struct memory *memory, const struct op *op,
                               strata_part part)
{
    uint8_t tier = memory->plan->homes[part].tier[op->tile];
    bool in_place = tier == STRATA_HOST || strata_plan_state_in_device(memory->plan, op->tile);
    return in_place ? strata_address_home(memory, part, op->tile)
                    : strata_address_update_frame(memory, op->frame, part);
}

uint8_t *strata_address_grad_frame(const struct memory *memory, const struct op *op)
{
    return op->frame_kind == FRAME_GRAD
               ? strata_address_frame(memory, FRAME_GRAD, op->frame)
               : strata_address_update_frame(memory, op->frame, STRATA_GRAD);
}

uint8_t *strata_address_placement(const struct memory *memory, uint32_t placement)
{
    const struct offload_plan *plan = memory->plan;
    const struct placement *p = &plan->residency.placements[placement];
    if (p->home)
        return strata_address_home(memory, STRATA_PARAM,
                                   plan->model.groups[p->group].layout.first_tile);
    return memory->device + plan->pool_at + p->offset;
}

uint8_t *strata_address_rounded(const struct memory *memory, uint32_t placement)
{
    const struct offload_plan *plan = memory->plan;
    uint32_t g = plan->residency.placements[placement].group;
    if (plan->model.groups[g].layout.in_device[STRATA_GRAD])
        return strata_address_home(memory, STRATA_GRAD,
                                   plan->model.groups[g].layout.first_tile);
    /* An fp32 wire is the buffer itself. */
    uint64_t buffer = plan->model.groups[g].layout.wire_dtype == STRATA_FP32
                          ? 0
                          : strata_layout_sum_bytes(plan->model.groups[g].layout.padded);
    return strata_address_placement(memory, placement) + buffer;
}

/* Blocks are assigned in turn, in each list from its own first. */
uint8_t *strata_address_stash_frame(const struct memory *memory, uint64_t turn, uint32_t event)
{
    const struct offload_plan *plan = memory->plan;
    const struct model *model = &plan->model;
    bool eval = event >= model->stash_event_count;
    uint64_t number =
        eval ? turn * model->eval_stash_event_count + event - model->stash_event_count
             : turn * model->stash_event_count + event;
    return memory->device + plan->stash_frames_at +
           number % plan->stash_frames * plan->model.stash_bytes;
}

static uint32_t stash_block(const struct offload_plan *plan, uint32_t event)
{
    return plan->model.uses[plan->model.stash_uses[event]].index;
}

static uint32_t stash_place(const struct memory *memory, uint32_t event)
{
    return (uint32_t)memory->plan->stash_at + stash_block(memory->plan, event);
}

uint8_t *strata_address_stash_home(const struct memory *memory, uint32_t event)
{
    const struct offload_plan *plan = memory->plan;
    uint8_t *arena = plan->stash == STRATA_DEVICE ? memory->device : memory->host;
    return arena + plan->stash_at + stash_block(plan, event) * plan->model.stash_bytes;
}

/* Bytes of some elements of an op's group, of what the op is about. */
static uint64_t bytes_of_elems(const struct offload_plan *plan, uint32_t group,
                               enum op_what what, uint64_t elems)
{
    const struct group_layout *layout = &plan->model.groups[group].layout;
    switch (what) {
    case WHAT_PARAM:
        return strata_layout_bytes(layout, STRATA_PARAM, elems);
    case WHAT_GRAD:
        return strata_layout_bytes(layout, STRATA_GRAD, elems);
    case WHAT_STATE:
        return strata_layout_bytes(layout, STRATA_STATE, elems);
    case WHAT_PARK:
        return strata_layout_sum_bytes(elems);
    case WHAT_STASH:
    case WHAT_NOTHING:
        break;
    }
    STRATA_CHECK(false);
    return 0;
}

uint64_t strata_address_bytes(const struct offload_plan *plan, const struct op *op)
{
    if (op->what == WHAT_STASH)
        return plan->model.stash_bytes;
    const struct tile *tile = &plan->model.tiles[op->tile];
    return bytes_of_elems(plan, tile->group, op->what, tile->elems);
}

/* An update's: gradient and state in, state and parameters out. */
static uint64_t update_bytes(const struct offload_plan *plan, const struct op *op)
{
    uint64_t param = strata_plan_part_bytes(plan, STRATA_PARAM, op->tile);
    uint64_t grad = strata_plan_part_bytes(plan, STRATA_GRAD, op->tile);
    uint64_t state = strata_plan_part_bytes(plan, STRATA_STATE, op->tile);
    uint64_t master = strata_layout_sum_bytes(plan->model.tiles[op->tile].elems);
    uint32_t work = op->work;
    uint64_t bytes = 0;
    if (work & (UPDATE_FOLD | UPDATE_APPLY))
        bytes += 2 * state + grad;
    if (work & UPDATE_APPLY)
        bytes += param;
    /* The state is in cache if it has just been folded. */
    if (work & UPDATE_WEIGHTS)
        bytes += grad + param + (work & UPDATE_FOLD ? 0 : state);
    if (work & UPDATE_REBUILD)
        bytes += master + param;
    if (work & UPDATE_TAKE)
        bytes += grad + (work & UPDATE_WEIGHTS ? 0 : grad);
    return bytes;
}

/* What is done to a placement as a whole: a buffer zeroed, or rounded. */
static uint64_t group_work_bytes(const struct offload_plan *plan, const struct op *op)
{
    uint32_t g = plan->residency.placements[op->placement].group;
    uint64_t elems = plan->model.groups[g].layout.padded;
    uint64_t rounded = strata_layout_bytes(&plan->model.groups[g].layout, STRATA_GRAD, elems);
    return strata_layout_sum_bytes(elems) + (op->kind == OP_ROUND ? rounded : 0);
}

uint64_t strata_address_work_bytes(const struct offload_plan *plan, const struct op *op)
{
    switch (op->kind) {
    case OP_ZERO:
    case OP_ROUND:
        return group_work_bytes(plan, op);
    case OP_NORM:
        return strata_plan_part_bytes(plan, STRATA_GRAD, op->tile);
    case OP_UPDATE:
        return update_bytes(plan, op);
    case OP_TOTAL:
        return plan->model.block_count * sizeof(double);
    case OP_NVME_READ:
    case OP_NVME_WRITE:
    case OP_H2D:
    case OP_D2H:
    case OP_GATHER:
    case OP_REDUCE:
    case OP_SHARE:
    case OP_COMMIT:
    case OP_OPEN:
        break;
    }
    return 0;
}

/* What this rank receives: of a group the other ranks' parts, of the sums all of theirs. */
static uint64_t received_bytes(const struct offload_plan *plan, const struct op *op)
{
    uint64_t others = plan->model.ranks - 1;
    if (op->kind == OP_SHARE)
        return others * plan->model.block_count * sizeof(double);
    uint32_t group = plan->residency.placements[op->placement].group;
    uint64_t elems = plan->model.groups[group].layout.shard_elems * others;
    return bytes_of_elems(plan, group, op->what, elems);
}

uint64_t strata_address_lane_bytes(const struct offload_plan *plan, const struct op *op)
{
    switch (op->kind) {
    case OP_NVME_READ:
    case OP_NVME_WRITE:
        return strata_address_bytes(plan, op);
    case OP_H2D:
    case OP_D2H:
        return op->what == WHAT_STASH ? plan->model.stash_copy_bytes
                                      : strata_address_bytes(plan, op);
    case OP_UPDATE:
    case OP_NORM:
        return op->on_device ? 0 : strata_address_work_bytes(plan, op);
    case OP_GATHER:
    case OP_REDUCE:
    case OP_SHARE:
        return received_bytes(plan, op);
    case OP_ZERO:
    case OP_ROUND:
    case OP_TOTAL:
    case OP_COMMIT:
    case OP_OPEN:
        break;
    }
    return 0;
}

/* A state record is written from its home in host RAM, else through an update frame. */
static struct transfer record_transfer(const struct memory *memory, const struct op *op)
{
    bool at_home = memory->plan->homes[STRATA_STATE].tier[op->tile] == STRATA_HOST;
    return (struct transfer){
        .place = strata_plan_record_place(memory->plan, op->tile, op->slot),
        .buffer = at_home ? strata_address_home(memory, STRATA_STATE, op->tile)
                          : strata_address_update_frame(memory, op->frame, STRATA_STATE),
    };
}

struct transfer strata_address_transfer(const struct memory *memory, const struct op *op)
{
    if (op->what == WHAT_STATE)
        return record_transfer(memory, op);
    if (op->what == WHAT_PARK)
        return (struct transfer){.place = (uint32_t)memory->plan->park.at[op->tile],
                                 .buffer = strata_address_frame(memory, FRAME_PARK, op->frame)};
    if (op->what == WHAT_STASH)
        return (struct transfer){.place = stash_place(memory, op->stash_event),
                                 .buffer =
                                     strata_address_frame(memory, FRAME_STASH, op->frame)};
    bool grad = op->what == WHAT_GRAD;
    strata_part part = grad ? STRATA_GRAD : STRATA_PARAM;
    struct transfer transfer = {.place = (uint32_t)memory->plan->homes[part].at[op->tile]};
    if (op->placement == STRATA_NONE)
        transfer.buffer = strata_address_update_frame(memory, op->frame, part);
    else
        transfer.buffer = grad ? strata_address_grad_frame(memory, op)
                               : strata_address_frame(memory, FRAME_FETCH, op->frame);
    return transfer;
}

static struct ends placement_ends(const struct memory *memory, const struct op *op)
{
    const struct offload_plan *plan = memory->plan;
    const struct tile *tile = &plan->model.tiles[op->tile];
    uint64_t first = bytes_of_elems(plan, tile->group, op->what, tile->first);
    struct ends ends = {.bytes = strata_address_bytes(memory->plan, op)};
    bool framed = op->frame != STRATA_NONE;
    switch (op->what) {
    case WHAT_PARAM:
        ends.device = strata_address_placement(memory, op->placement) + first;
        ends.host = framed ? strata_address_frame(memory, FRAME_FETCH, op->frame)
                           : strata_address_home(memory, STRATA_PARAM, op->tile);
        break;
    case WHAT_PARK:
        ends.device = strata_address_placement(memory, op->placement) + first;
        ends.host = framed ? strata_address_frame(memory, FRAME_PARK, op->frame)
                           : memory->host + plan->park.at[op->tile];
        break;
    case WHAT_GRAD:
        ends.device = strata_address_rounded(memory, op->placement) + first;
        ends.host = framed ? strata_address_grad_frame(memory, op)
                           : strata_address_home(memory, STRATA_GRAD, op->tile);
        break;
    case WHAT_STATE:
    case WHAT_STASH:
    case WHAT_NOTHING:
        STRATA_CHECK(false); /* none is a placement's */
    }
    return ends;
}

struct ends strata_address_ends(const struct memory *memory, const struct op *op)
{
    if (op->what == WHAT_STASH)
        return (struct ends){.device =
                                 strata_address_stash_frame(memory, op->step, op->stash_event),
                             .host = op->frame != STRATA_NONE
                                         ? strata_address_frame(memory, FRAME_STASH, op->frame)
                                         : strata_address_stash_home(memory, op->stash_event),
                             .bytes = memory->plan->model.stash_copy_bytes};
    if (op->placement != STRATA_NONE)
        return placement_ends(memory, op);
    /* An update's: its gradient rests in the device, or its new parameters do; or a state that
     * rests there is saved. */
    strata_part part = op->what == WHAT_PARAM   ? STRATA_PARAM
                       : op->what == WHAT_STATE ? STRATA_STATE
                                                : STRATA_GRAD;
    return (struct ends){.device = strata_address_home(memory, part, op->tile),
                         .host = strata_address_update_frame(memory, op->frame, part),
                         .bytes = strata_address_bytes(memory->plan, op)};
}

/*
 * Copying and checking the caller's description of the model. Later code relies on it: sizes do
 * not overflow, acquires and releases pair up, every stash is taken back, and every group is
 * trained or frozen.
 *
 * Thread: the engine's caller, at create.
 */

#include "offload/plan/model.h"

#include "base/error.h"
#include "base/round.h"

#include <stdlib.h>
#include <string.h>

/* More elements than this in one group would overflow byte counts that are kept in 64 bits. */
#define MAX_ELEMS ((uint64_t)1 << 50)
#define MAX_BYTES ((uint64_t)1 << 60)
#define MAX_USES  (1u << 24)
#define MAX_TILES (1u << 26)

static const char *copy_name(struct tables *tables, const char *name)
{
    size_t bytes = strlen(name) + 1;
    char *copy = strata_tables_take(tables, bytes, 1);
    if (copy != NULL)
        memcpy(copy, name, bytes);
    return copy;
}

static strata_status tensor_elems(const strata_tensor_desc *desc, uint64_t *out,
                                  strata_error *error)
{
    if (desc->name == NULL || desc->rank == 0 || desc->rank > STRATA_MAX_RANK)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "tensor %s: needs a name and a rank of 1 to %d",
                           desc->name != NULL ? desc->name : "(no name)", STRATA_MAX_RANK);
    uint64_t elems = 1;
    for (uint32_t i = 0; i < desc->rank; i++) {
        if (desc->shape[i] == 0 || __builtin_mul_overflow(elems, desc->shape[i], &elems) ||
            elems > MAX_ELEMS)
            return strata_fail(error, STRATA_E_INVALID, 0, "tensor %s: dimension %u is %llu",
                               desc->name, i, (unsigned long long)desc->shape[i]);
    }
    *out = elems;
    return STRATA_OK;
}

static strata_status copy_group(struct model *model, struct tables *tables,
                                const strata_group_desc *desc, struct group *group,
                                strata_error *error)
{
    uint64_t elems = 0;
    for (uint32_t i = 0; i < desc->tensor_count; i++) {
        struct tensor *tensor = &model->tensors[group->first_tensor + i];
        STRATA_TRY(tensor_elems(&desc->tensors[i], &tensor->elems, error));
        tensor->name = copy_name(tables, desc->tensors[i].name);
        tensor->no_decay = desc->tensors[i].no_decay;
        tensor->offset = elems;
        elems += tensor->elems;
        if (elems > MAX_ELEMS)
            return strata_fail(error, STRATA_E_INVALID, 0, "group %s: more than 2^50 elements",
                               desc->name);
    }
    group->name = copy_name(tables, desc->name);
    group->elems = elems;
    group->layout.frozen = desc->frozen;
    group->layout.padded = strata_round_up(elems, (uint64_t)model->ranks * STRATA_BLOCK_ELEMS);
    group->layout.shard_elems = group->layout.padded / model->ranks;
    return STRATA_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Messages and files name a tensor by its name alone, so no two may have the same. */
static strata_status check_names(const struct model *model, strata_error *error)
{
    const char **names = malloc(model->tensor_count * sizeof *names);
    if (names == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for the names of %u tensors",
                           model->tensor_count);
    for (uint32_t i = 0; i < model->tensor_count; i++)
        names[i] = model->tensors[i].name;
    qsort(names, model->tensor_count, sizeof *names, by_name);
    uint32_t i = 1;
    while (i < model->tensor_count && strcmp(names[i - 1], names[i]) != 0)
        i++;
    strata_status status = STRATA_OK;
    if (i < model->tensor_count)
        status =
            strata_fail(error, STRATA_E_INVALID, 0, "two tensors have the name %s", names[i]);
    free(names);
    return status;
}

static strata_status copy_groups(struct model *model, struct tables *tables,
                                 const strata_model_desc *desc, strata_error *error)
{
    uint64_t tensor_count = 0;
    for (uint32_t g = 0; g < desc->group_count; g++) {
        if (desc->groups[g].name == NULL || desc->groups[g].tensors == NULL ||
            desc->groups[g].tensor_count == 0)
            return strata_fail(error, STRATA_E_INVALID, 0,
                               "group %u: needs a name and at least one tensor", g);
        tensor_count += desc->groups[g].tensor_count;
    }
    if (tensor_count > UINT32_MAX)
        return strata_fail(error, STRATA_E_INVALID, 0, "more than 2^32 tensors");
    model->group_count = desc->group_count;
    model->tensor_count = (uint32_t)tensor_count;
    model->groups = strata_tables_take(tables, model->group_count, sizeof *model->groups);
    model->tensors = strata_tables_take(tables, model->tensor_count, sizeof *model->tensors);
    STRATA_TRY(strata_tables_check(tables, error));
    uint32_t first_tensor = 0;
    for (uint32_t g = 0; g < model->group_count; g++) {
        model->groups[g].first_tensor = first_tensor;
        model->groups[g].tensor_count = desc->groups[g].tensor_count;
        first_tensor += desc->groups[g].tensor_count;
        STRATA_TRY(copy_group(model, tables, &desc->groups[g], &model->groups[g], error));
        model->elems += model->groups[g].elems;
        model->trained_elems += model->groups[g].layout.frozen ? 0 : model->groups[g].elems;
        model->padded += model->groups[g].layout.shard_elems;
    }
    if (model->trained_elems == 0)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "all %u groups are frozen: there is nothing to train",
                           model->group_count);
    STRATA_TRY(strata_tables_check(tables, error));
    return check_names(model, error);
}

/* The tiles of a group, from number `next` on. */
static void cut_group(struct model *model, uint32_t g, uint32_t rank, uint32_t next)
{
    struct group_layout *layout = &model->groups[g].layout;
    uint64_t own = layout->shard_elems;
    layout->first_tile = next;
    for (uint64_t first = 0; first < own; first += model->tile_elems) {
        uint64_t left = own - first;
        model->tiles[next++] = (struct tile){
            .group = g,
            .first = rank * own + first,
            .elems = left < model->tile_elems ? (uint32_t)left : model->tile_elems,
            .first_block = model->block_count + first / STRATA_BLOCK_ELEMS,
        };
    }
    layout->tile_count = next - layout->first_tile;
    if (!layout->frozen)
        model->block_count += own / STRATA_BLOCK_ELEMS;
}

static strata_status cut_tiles(struct model *model, struct tables *tables, uint32_t tile_elems,
                               uint32_t rank, strata_error *error)
{
    uint64_t count = 0;
    for (uint32_t g = 0; g < model->group_count; g++)
        count += strata_units_of(model->groups[g].layout.shard_elems, tile_elems);
    if (count > MAX_TILES)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "tiles of %u elements: %llu of them, at most %u", tile_elems,
                           (unsigned long long)count, MAX_TILES);
    model->tile_elems = tile_elems;
    model->tile_count = (uint32_t)count;
    model->tiles = strata_tables_take(tables, count, sizeof *model->tiles);
    STRATA_TRY(strata_tables_check(tables, error));
    uint32_t next = 0;
    for (int frozen = 0; frozen < 2; frozen++) {
        for (uint32_t g = 0; g < model->group_count; g++) {
            if (model->groups[g].layout.frozen != frozen)
                continue;
            cut_group(model, g, rank, next);
            next += model->groups[g].layout.tile_count;
        }
        if (!frozen)
            model->trained_tile_count = next;
    }
    return STRATA_OK;
}

/* A use as a message names it: the list, and the entry of it. */
struct entry_name {
    const char *list;
    uint32_t entry;
};

static struct entry_name entry_name_of(const struct model *model, uint32_t u)
{
    bool eval = strata_model_is_eval(model, u);
    return (struct entry_name){.list = eval ? "evaluation's use list" : "use list",
                               .entry = eval ? u - model->use_count : u};
}

/* open[i]: the acquire (or stash) that is open for index i, STRATA_NONE: none. */
static strata_status pair_use(const struct model *model, uint32_t *open, uint32_t u, bool opens,
                              strata_error *error)
{
    static const char *const names[] = {"", "acquire", "release", "stash", "unstash"};
    struct use *use = &model->uses[u];
    struct entry_name name = entry_name_of(model, u);
    if (opens != (open[use->index] == STRATA_NONE))
        return strata_fail(error, STRATA_E_INVALID, 0, "%s entry %u: %s of %u, which is %s",
                           name.list, name.entry, names[use->kind], use->index,
                           opens ? "open already" : "not open");
    if (opens) {
        open[use->index] = u;
        return STRATA_OK;
    }
    use->partner = open[use->index];
    use->grad = model->uses[use->partner].grad;
    model->uses[use->partner].partner = u;
    open[use->index] = STRATA_NONE;
    return STRATA_OK;
}

/* Pair acquires with releases, and stashes with unstashes, of one list. */
static strata_status pair_uses(struct model *model, struct use_list list, uint32_t *open_group,
                               uint32_t *open_block, strata_error *error)
{
    const char *name = entry_name_of(model, list.first).list;
    for (uint32_t u = list.first; u < list.end; u++) {
        struct use *use = &model->uses[u];
        bool of_group = use->kind == STRATA_USE_ACQUIRE || use->kind == STRATA_USE_RELEASE;
        bool opens = use->kind == STRATA_USE_ACQUIRE || use->kind == STRATA_USE_STASH;
        if (of_group && use->index >= model->group_count)
            return strata_fail(error, STRATA_E_INVALID, 0, "%s entry %u: group %u of %u", name,
                               entry_name_of(model, u).entry, use->index, model->group_count);
        STRATA_TRY(pair_use(model, of_group ? open_group : open_block, u, opens, error));
        if (!of_group) {
            use->stash_event = model->stash_event_count + model->eval_stash_event_count;
            model->stash_uses[use->stash_event] = u;
            if (strata_model_is_eval(model, u))
                model->eval_stash_event_count++;
            else
                model->stash_event_count++;
        }
    }
    for (uint32_t g = 0; g < model->group_count; g++)
        if (open_group[g] != STRATA_NONE)
            return strata_fail(error, STRATA_E_INVALID, 0, "%s: group %s is never released",
                               name, model->groups[g].name);
    for (uint32_t b = 0; b < model->stash_block_count; b++)
        if (open_block[b] != STRATA_NONE)
            return strata_fail(error, STRATA_E_INVALID, 0, "%s: block %u is never taken back",
                               name, b);
    return STRATA_OK;
}

/* Check that a use has a gradient only if its group does, and that the last use of a trained
 * group has one. last: it is the group's last use in the list. */
static strata_status check_grad(const struct model *model, uint32_t u, bool last,
                                strata_error *error)
{
    const struct use *use = &model->uses[u];
    const struct group *group = &model->groups[use->index];
    struct entry_name name = entry_name_of(model, u);
    bool eval = strata_model_is_eval(model, u);
    if (use->grad && (group->layout.frozen || eval))
        return strata_fail(error, STRATA_E_INVALID, 0, "%s entry %u: a gradient of group %s%s",
                           name.list, name.entry, group->name,
                           eval ? "; an evaluation has none" : ", which is frozen");
    if (last && !use->grad && !group->layout.frozen && !eval)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "use list entry %u: the last use of group %s has no gradient; "
                           "the step's update may come before it",
                           u, group->name);
    return STRATA_OK;
}

/* Go backwards through one list and set the next use of each acquire's group. */
static strata_status link_uses(struct model *model, struct use_list list, uint32_t *next,
                               uint32_t *next_grad, strata_error *error)
{
    bool eval = strata_model_is_eval(model, list.first);
    bool acquires = false;
    for (uint32_t g = 0; g < model->group_count; g++)
        next[g] = next_grad[g] = STRATA_NONE;
    for (uint32_t u = list.end; u-- > list.first;) {
        struct use *use = &model->uses[u];
        if (use->kind != STRATA_USE_ACQUIRE)
            continue;
        acquires = true;
        STRATA_TRY(check_grad(model, u, next[use->index] == STRATA_NONE, error));
        use->next = next[use->index];
        use->next_grad = next_grad[use->index];
        next[use->index] = u;
        if (use->grad)
            next_grad[use->index] = u;
    }
    if (eval && !acquires)
        return strata_fail(error, STRATA_E_INVALID, 0, "%s: no group is acquired",
                           entry_name_of(model, list.first).list);
    for (uint32_t g = 0; g < model->group_count; g++)
        if (!eval && next_grad[g] == STRATA_NONE && !model->groups[g].layout.frozen)
            return strata_fail(error, STRATA_E_INVALID, 0,
                               "group %s: no use with a gradient, and it is not frozen",
                               model->groups[g].name);
    return STRATA_OK;
}

/* Copy one list, from use `first` on. Both lists share the numbers of activation blocks. */
static strata_status copy_list(struct model *model, uint32_t first, const strata_use *uses,
                               uint32_t count, uint64_t stash_bytes, strata_error *error)
{
    for (uint32_t i = 0; i < count; i++) {
        const strata_use *use = &uses[i];
        struct entry_name name = entry_name_of(model, first + i);
        if (use->kind < STRATA_USE_ACQUIRE || use->kind > STRATA_USE_UNSTASH)
            return strata_fail(error, STRATA_E_INVALID, 0, "%s entry %u: unknown kind %d",
                               name.list, name.entry, (int)use->kind);
        bool stash = use->kind == STRATA_USE_STASH || use->kind == STRATA_USE_UNSTASH;
        if (stash && (use->index >= MAX_USES || stash_bytes == 0))
            return strata_fail(error, STRATA_E_INVALID, 0,
                               "%s entry %u: block %u of %llu bytes", name.list, name.entry,
                               use->index, (unsigned long long)stash_bytes);
        if (stash && use->index >= model->stash_block_count)
            model->stash_block_count = use->index + 1;
        model->uses[first + i] =
            (struct use){.kind = use->kind,
                         .index = use->index,
                         .grad = use->kind == STRATA_USE_ACQUIRE && use->grad,
                         .flops = use->flops,
                         .next = STRATA_NONE,
                         .next_grad = STRATA_NONE};
    }
    return STRATA_OK;
}

static strata_status copy_uses(struct model *model, struct tables *tables,
                               const strata_model_desc *desc, strata_error *error)
{
    uint32_t step = desc->use_count;
    uint32_t all = step + desc->eval_use_count;
    model->use_count = step;
    model->eval_use_count = desc->eval_use_count;
    model->uses = strata_tables_take(tables, all, sizeof *model->uses);
    model->stash_uses = strata_tables_take(tables, all, sizeof *model->stash_uses);
    STRATA_TRY(strata_tables_check(tables, error));
    STRATA_TRY(copy_list(model, 0, desc->uses, step, desc->stash_bytes, error));
    STRATA_TRY(copy_list(model, step, desc->eval_uses, desc->eval_use_count, desc->stash_bytes,
                         error));
    uint32_t blocks = model->stash_block_count;
    uint32_t *open_block = strata_tables_take(tables, blocks, sizeof *open_block);
    uint32_t *open_group = strata_tables_take(tables, model->group_count, sizeof *open_group);
    uint32_t *next_grad = strata_tables_take(tables, model->group_count, sizeof *next_grad);
    STRATA_TRY(strata_tables_check(tables, error));
    memset(open_block, 0xff, blocks * sizeof *open_block);
    memset(open_group, 0xff, model->group_count * sizeof *open_group);
    struct use_list list = strata_model_list(model, false);
    STRATA_TRY(pair_uses(model, list, open_group, open_block, error));
    /* After pairing nothing is open: open_group is of use again. */
    STRATA_TRY(link_uses(model, list, open_group, next_grad, error));
    if (all == step)
        return STRATA_OK;
    memset(open_group, 0xff, model->group_count * sizeof *open_group);
    list = strata_model_list(model, true);
    STRATA_TRY(pair_uses(model, list, open_group, open_block, error));
    return link_uses(model, list, open_group, next_grad, error);
}

strata_status strata_model_build(struct model *out, struct tables *tables,
                                 const strata_model_desc *desc, uint32_t tile_elems,
                                 struct shard shard, strata_error *error)
{
    *out = (struct model){.ranks = shard.ranks > 0 ? shard.ranks : 1};
    if (desc == NULL || desc->groups == NULL || desc->group_count == 0 || desc->uses == NULL ||
        desc->use_count == 0)
        return strata_fail(error, STRATA_E_INVALID, 0, "a model needs groups and a use list");
    if ((desc->eval_uses == NULL) != (desc->eval_use_count == 0))
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "evaluation's use list: %u entries at %s", desc->eval_use_count,
                           desc->eval_uses == NULL ? "NULL" : "an address");
    if ((uint64_t)desc->use_count + desc->eval_use_count > MAX_USES)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "use list: %u entries and %u of an evaluation, at most %u together",
                           desc->use_count, desc->eval_use_count, MAX_USES);
    if (tile_elems == 0 || tile_elems % STRATA_BLOCK_ELEMS != 0 || tile_elems > (1u << 30))
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "tile of %u elements: not a multiple of %u up to 2^30", tile_elems,
                           STRATA_BLOCK_ELEMS);
    if (desc->scratch_bytes > MAX_BYTES || desc->stash_bytes > MAX_BYTES / MAX_USES)
        return strata_fail(
            error, STRATA_E_INVALID, 0,
            "scratch of %llu bytes, activation blocks of %llu: beyond any device",
            (unsigned long long)desc->scratch_bytes, (unsigned long long)desc->stash_bytes);
    out->scratch_bytes = strata_round_up(desc->scratch_bytes, 4096);
    out->stash_copy_bytes = desc->stash_bytes;
    out->stash_bytes = strata_round_up(desc->stash_bytes, 4096);
    STRATA_TRY(copy_groups(out, tables, desc, error));
    STRATA_TRY(cut_tiles(out, tables, tile_elems, shard.rank, error));
    return copy_uses(out, tables, desc, error);
}

const struct tensor *strata_model_tensor_at(const struct model *model, uint32_t group,
                                            uint64_t elem)
{
    uint32_t low = model->groups[group].first_tensor;
    uint32_t high = low + model->groups[group].tensor_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (model->tensors[middle].offset <= elem)
            low = middle;
        else
            high = middle;
    }
    const struct tensor *tensor = &model->tensors[low];
    return elem < tensor->offset + tensor->elems ? tensor : NULL;
}

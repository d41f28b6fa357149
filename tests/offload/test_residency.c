/*
 * The layout of the device's pool: what is held never overlaps, what could stay stays, the
 * minimum is the formula's, and with equal groups the loads are as few as an offline optimum
 * has them.
 */

#include "offload/plan/residency.h"

#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_GROUPS 24u
#define W          2u /* bytes of bf16 */

static char names[MAX_GROUPS][16];
static strata_tensor_desc tensors[MAX_GROUPS];
static strata_group_desc groups[MAX_GROUPS];
static strata_use uses[4 * MAX_GROUPS + 64];
static strata_model_desc desc;
static struct tables tables;
static struct model model;
static struct residency residency;

/* What a plan fills in of each group's layout. */
static void set_types(const struct group_layout *types)
{
    for (uint32_t g = 0; g < model.group_count; g++) {
        struct group_layout *layout = &model.groups[g].layout;
        layout->param_dtype = types->param_dtype;
        layout->wire_dtype = types->wire_dtype;
        layout->staged = types->staged;
        memcpy(layout->in_device, types->in_device, sizeof layout->in_device);
    }
}

static void add(uint32_t group, bool grad)
{
    uses[desc.use_count++] =
        (strata_use){.kind = STRATA_USE_ACQUIRE, .index = group, .grad = grad};
    uses[desc.use_count++] = (strata_use){.kind = STRATA_USE_RELEASE, .index = group};
}

static void start(uint32_t count, uint64_t blocks)
{
    desc = (strata_model_desc){.groups = groups, .group_count = count, .uses = uses};
    for (uint32_t g = 0; g < count; g++) {
        snprintf(names[g], sizeof names[g], "g%u", g);
        tensors[g] = (strata_tensor_desc){
            .name = names[g], .shape = {blocks * STRATA_BLOCK_ELEMS}, .rank = 1};
        groups[g] =
            (strata_group_desc){.name = names[g], .tensors = &tensors[g], .tensor_count = 1};
    }
}

static void finish(void)
{
    strata_error error = {0};
    cr_assert_eq(strata_model_build(&model, &tables, &desc, STRATA_BLOCK_ELEMS,
                                    (struct shard){0}, &error),
                 STRATA_OK, "%s", error.message);
    set_types(&(struct group_layout){
        .param_dtype = STRATA_BF16, .wire_dtype = STRATA_BF16, .staged = true});
    cr_assert_eq(strata_residency_create(&residency, &tables, &model, &error), STRATA_OK);
}

/* Forward through all, then backward. */
static void transformer(uint32_t count, uint64_t blocks)
{
    start(count, blocks);
    for (uint32_t g = 0; g < count; g++)
        add(g, false);
    for (uint32_t g = count; g-- > 0;)
        add(g, true);
    finish();
}

static void teardown(void)
{
    strata_tables_free(&tables);
}

TestSuite(residency, .fini = teardown);

Test(residency, one_group_at_a_time_fits_the_formula_minimum)
{
    transformer(10, 3);
    uint64_t minimum = strata_residency_minimum(&model);
    cr_expect_eq(minimum, 3 * STRATA_BLOCK_ELEMS * (W + 4 + W));
    cr_expect(strata_residency_build(&residency, &model, minimum));
    cr_expect_leq(residency.pool_bytes, minimum);
    cr_expect_not(strata_residency_build(&residency, &model, minimum - 1));
}

Test(residency, with_room_for_all_each_group_is_loaded_once)
{
    transformer(10, 3);
    uint64_t all = 10 * 3 * STRATA_BLOCK_ELEMS * (uint64_t)W;
    cr_assert(
        strata_residency_build(&residency, &model, all + strata_residency_minimum(&model)));
    cr_expect_eq(residency.load_count, 10);
}

/* Forward and back through n groups with room for k beside the gradient: those k that forward
 * saw last should be there in backward. The gradient buffer takes the room of three groups and
 * lies in one piece, which may push out two more than an optimum that could cut it up. */
Test(residency, the_turning_point_is_not_loaded_twice)
{
    transformer(12, 1);
    uint64_t group = STRATA_BLOCK_ELEMS * (uint64_t)W;
    for (uint64_t k = 4; k <= 14; k++) {
        cr_assert(strata_residency_build(&residency, &model, k * group));
        uint64_t beside = k - 3;
        uint64_t best = beside >= 12 ? 12 : 24 - beside;
        cr_expect_leq(residency.load_count, best + 2, "room for %llu: %u loads",
                      (unsigned long long)k, residency.load_count);
        cr_expect_geq(residency.load_count, best < 12 ? 12 : best);
    }
}

Test(residency, what_is_held_together_lies_apart)
{
    start(6, 2);
    for (uint32_t g = 0; g + 1 < 6; g++) {
        uses[desc.use_count++] =
            (strata_use){.kind = STRATA_USE_ACQUIRE, .index = g, .grad = true};
        uses[desc.use_count++] =
            (strata_use){.kind = STRATA_USE_ACQUIRE, .index = g + 1, .grad = true};
        uses[desc.use_count++] = (strata_use){.kind = STRATA_USE_RELEASE, .index = g};
        uses[desc.use_count++] = (strata_use){.kind = STRATA_USE_RELEASE, .index = g + 1};
    }
    finish();
    uint64_t minimum = strata_residency_minimum(&model);
    cr_expect_eq(minimum, 2 * 2 * STRATA_BLOCK_ELEMS * (W + 4 + W));
    cr_assert(strata_residency_build(&residency, &model, 2 * minimum));
    for (uint32_t i = 0; i < residency.count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            const struct placement *a = &residency.placements[i];
            const struct placement *b = &residency.placements[j];
            bool together = a->first_use < b->last_use && b->first_use < a->last_use;
            bool overlap = a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
            cr_expect_not(together && overlap, "placements %u and %u", i, j);
        }
    }
}

Test(residency, a_gradient_without_room_is_parked_in_between)
{
    start(8, 1);
    add(0, true);
    for (uint32_t g = 1; g < 8; g++)
        add(g, true);
    add(0, true);
    finish();
    cr_assert(strata_residency_build(&residency, &model, strata_residency_minimum(&model)));
    cr_expect(residency.parks[0]);
    cr_expect_not(residency.parks[1]);
    cr_assert(strata_residency_build(&residency, &model, 8 * strata_residency_minimum(&model)));
    cr_expect_not(residency.parks[0], "with room it stays");
}

Test(residency, parameters_at_home_take_no_pool)
{
    transformer(4, 1);
    set_types(&(struct group_layout){.param_dtype = STRATA_BF16,
                                     .wire_dtype = STRATA_BF16,
                                     .staged = true,
                                     .in_device = {true, true, false}});
    cr_expect_eq(strata_residency_minimum(&model), 4 * STRATA_BLOCK_ELEMS);
    cr_assert(strata_residency_build(&residency, &model, 4 * STRATA_BLOCK_ELEMS));
    cr_expect_eq(residency.load_count, 0);
}

/* Random use lists against all ways to evict. fp32 makes a gradient buffer, which is needed at
 * a group's last use alone, as large as parameters: everything is one frame. */

#define FEW_GROUPS 7u
#define MOST_USES  40u

static uint32_t next_random(uint32_t *random, uint32_t below)
{
    *random = *random * 1664525u + 1013904223u;
    return (*random >> 8) % below;
}

/* The groups in random order, most of them more than twice. */
static uint32_t random_list(uint32_t *random, uint32_t count, uint32_t *out)
{
    uint32_t length = count + next_random(random, MOST_USES - count);
    uint32_t i = 0;
    for (; i + count < length; i++)
        out[i] = next_random(random, count);
    for (uint32_t g = 0; g < count; g++)
        out[i + g] = g;
    for (uint32_t left = count; left > 1; left--) {
        uint32_t other = i + next_random(random, left);
        uint32_t group = out[i + left - 1];
        out[i + left - 1] = out[other];
        out[other] = group;
    }
    return length;
}

/* Fewest loads, by the set of groups that are there: with[set] after the uses so far. */
static uint32_t fewest_loads(const uint32_t *list, uint32_t length, uint32_t frames)
{
    uint32_t with[1u << FEW_GROUPS], after[1u << FEW_GROUPS];
    memset(with, 0xff, sizeof with);
    with[0] = 0;
    for (uint32_t u = 0; u < length; u++) {
        uint32_t group = 1u << list[u];
        bool last = true;
        for (uint32_t v = u + 1; v < length; v++)
            last = last && list[v] != list[u];
        memset(after, 0xff, sizeof after);
        for (uint32_t set = 0; set < 1u << FEW_GROUPS; set++) {
            if (with[set] == UINT32_MAX)
                continue;
            uint32_t loads = with[set] + ((set & group) == 0);
            uint32_t others = set & ~group;
            for (uint32_t kept = others;; kept = (kept - 1) & others) {
                uint32_t held = (uint32_t)__builtin_popcount(kept) + 1 + last;
                uint32_t then = last ? kept : kept | group;
                if (held <= frames && loads < after[then])
                    after[then] = loads;
                if (kept == 0)
                    break;
            }
        }
        memcpy(with, after, sizeof with);
    }
    uint32_t best = UINT32_MAX;
    for (uint32_t set = 0; set < 1u << FEW_GROUPS; set++)
        best = with[set] < best ? with[set] : best;
    return best;
}

Test(residency, with_groups_of_one_size_loads_are_the_fewest_of_all_ways_to_evict)
{
    uint32_t random = 1;
    for (int i = 0; i < 400; i++) {
        uint32_t list[MOST_USES];
        uint32_t count = 2 + next_random(&random, FEW_GROUPS - 1);
        uint32_t length = random_list(&random, count, list);
        start(count, 1);
        for (uint32_t u = 0; u < length; u++) {
            bool last = true;
            for (uint32_t v = u + 1; v < length; v++)
                last = last && list[v] != list[u];
            add(list[u], last);
        }
        finish();
        set_types(
            &(struct group_layout){.param_dtype = STRATA_FP32, .wire_dtype = STRATA_FP32});
        for (uint32_t frames = 2; frames <= count + 1; frames++) {
            cr_assert(strata_residency_build(&residency, &model,
                                             frames * 4 * (uint64_t)STRATA_BLOCK_ELEMS));
            cr_assert_eq(residency.load_count, fewest_loads(list, length, frames),
                         "list %d, %u frames: %u loads", i, frames, residency.load_count);
        }
        strata_tables_free(&tables);
        tables = (struct tables){0};
    }
}

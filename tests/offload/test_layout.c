/*
 * Bytes of a group by its layout, and the numbering of tiles by what is trained.
 */

#include "offload/plan/plan_host.h"

#include <criterion/criterion.h>

#include <string.h>

static const struct group_layout bf16 = {.param_dtype = STRATA_BF16,
                                         .wire_dtype = STRATA_BF16,
                                         .record = {1, 12 * STRATA_BLOCK_ELEMS},
                                         .staged = true};

Test(layout, bytes_follow_each_parts_own_type)
{
    struct group_layout mixed = bf16;
    mixed.wire_dtype = STRATA_FP32;
    mixed.record.block_bytes = 8 * STRATA_BLOCK_ELEMS;
    const uint64_t elems = 3 * (uint64_t)STRATA_BLOCK_ELEMS;
    cr_expect_eq(strata_layout_bytes(&mixed, STRATA_PARAM, elems), 2 * elems);
    cr_expect_eq(strata_layout_bytes(&mixed, STRATA_GRAD, elems), 4 * elems);
    cr_expect_eq(strata_layout_bytes(&mixed, STRATA_STATE, elems), 8 * elems);
    cr_expect_eq(strata_layout_bytes(&mixed, STRATA_STATE, elems + 5), 8 * elems + 40);
}

/* The most elements that a model may have, in the widest record. */
Test(layout, bytes_of_the_largest_group_do_not_overflow)
{
    const uint64_t elems = (uint64_t)1 << 50;
    cr_expect_eq(strata_layout_bytes(&bf16, STRATA_STATE, elems), 12 * elems);
    cr_expect_eq(strata_layout_bytes(&bf16, STRATA_STATE, elems - 1), 12 * (elems - 1));
}

Test(layout, a_frozen_group_has_parameters_alone)
{
    struct group_layout frozen = bf16;
    frozen.frozen = true;
    cr_expect_eq(strata_layout_bytes(&frozen, STRATA_PARAM, 100), 200);
    cr_expect_eq(strata_layout_bytes(&frozen, STRATA_GRAD, 100), 0);
    cr_expect_eq(strata_layout_bytes(&frozen, STRATA_STATE, STRATA_BLOCK_ELEMS), 0);
}

Test(layout, what_rests_in_the_device_takes_no_pool)
{
    struct group_layout layout = bf16;
    layout.padded = 100;
    cr_expect_eq(strata_layout_param_pool_bytes(&layout), 200);
    cr_expect_eq(strata_layout_grad_pool_bytes(&layout), 400 + 200);
    layout.in_device[STRATA_PARAM] = layout.in_device[STRATA_GRAD] = true;
    cr_expect_eq(strata_layout_param_pool_bytes(&layout), 0);
    cr_expect_eq(strata_layout_grad_pool_bytes(&layout), 400);
    layout.in_device[STRATA_GRAD] = layout.staged = false;
    cr_expect_eq(strata_layout_grad_pool_bytes(&layout), 400);
}

Test(layout, only_an_fp32_gradient_that_goes_elsewhere_is_not_rounded)
{
    struct group_layout layout = bf16;
    cr_expect(strata_layout_rounds(&layout));
    layout.wire_dtype = STRATA_FP32;
    cr_expect_not(strata_layout_rounds(&layout));
    layout.in_device[STRATA_GRAD] = true;
    cr_expect(strata_layout_rounds(&layout));
}

/* A trained tile in host RAM and a frozen one on NVMe: the one needs no frame at all. */
Test(layout, a_frozen_tile_on_nvme_calls_for_a_fetch_frame_alone)
{
    struct group groups[2] = {{.layout = bf16}, {.layout = bf16}};
    struct tile tiles[2] = {{.group = 0, .elems = STRATA_BLOCK_ELEMS},
                            {.group = 1, .elems = STRATA_BLOCK_ELEMS}};
    uint8_t params[2] = {STRATA_HOST, STRATA_NVME};
    uint8_t others[2] = {STRATA_HOST, STRATA_AUTO};
    uint8_t parks[2] = {0};
    struct offload_plan plan = {
        .model = {.groups = groups, .tiles = tiles, .tile_count = 2, .trained_tile_count = 1},
        .homes = {{.tier = params}, {.tier = others}, {.tier = others}},
        .park = {.tier = parks},
        .durable = true,
    };
    groups[1].layout.frozen = true;
    strata_plan_set_strides(&plan);
    cr_expect_eq(strata_plan_least_frames(&plan), plan.frame_stride[FRAME_FETCH]);
    params[1] = STRATA_DEVICE;
    cr_expect_eq(strata_plan_least_frames(&plan), plan.frame_stride[FRAME_UPDATE]);
    plan.durable = false;
    cr_expect_eq(strata_plan_least_frames(&plan), 0);
}

/* Groups of 2, 1 and 3 tiles, the middle one and the first one frozen, in every way. */
Test(layout, trained_tiles_come_first_and_frozen_ones_last)
{
    static const uint64_t blocks[3] = {2, 1, 3};
    static const char *const names[3] = {"a", "b", "c"};
    for (uint32_t frozen = 0; frozen < 7; frozen++) {
        strata_tensor_desc tensors[3];
        strata_group_desc groups[3];
        strata_use uses[6];
        uint32_t trained = 0;
        for (uint32_t g = 0; g < 3; g++) {
            bool is_frozen = frozen >> g & 1;
            tensors[g] = (strata_tensor_desc){
                .name = names[g], .shape = {blocks[g] * STRATA_BLOCK_ELEMS}, .rank = 1};
            groups[g] = (strata_group_desc){.name = names[g],
                                            .tensors = &tensors[g],
                                            .tensor_count = 1,
                                            .frozen = is_frozen};
            uses[2 * g] =
                (strata_use){.kind = STRATA_USE_ACQUIRE, .index = g, .grad = !is_frozen};
            uses[2 * g + 1] = (strata_use){.kind = STRATA_USE_RELEASE, .index = g};
            trained += is_frozen ? 0 : (uint32_t)blocks[g];
        }
        strata_model_desc desc = {
            .groups = groups, .group_count = 3, .uses = uses, .use_count = 6};
        struct model model;
        struct tables tables = {0};
        strata_error error = {0};
        cr_assert_eq(strata_model_build(&model, &tables, &desc, STRATA_BLOCK_ELEMS,
                                        (struct shard){0}, &error),
                     STRATA_OK, "%s", error.message);
        cr_expect_eq(model.tile_count, 6);
        cr_expect_eq(model.trained_tile_count, trained);
        cr_expect_eq(model.block_count, trained, "norm blocks are the trained tiles'");
        for (uint32_t g = 0; g < 3; g++) {
            const struct group *group = &model.groups[g];
            cr_expect_eq(group->layout.tile_count, blocks[g]);
            for (uint32_t i = 0; i < group->layout.tile_count; i++) {
                uint32_t tile = group->layout.first_tile + i;
                cr_expect_eq(model.tiles[tile].group, g);
                cr_expect_eq(model.tiles[tile].first, i * (uint64_t)STRATA_BLOCK_ELEMS);
                cr_expect_eq(tile < trained, !group->layout.frozen);
                if (!group->layout.frozen)
                    cr_expect_eq(model.tiles[tile].first_block, tile);
            }
        }
        strata_tables_free(&tables);
    }
}

#ifndef STRATA_OFFLOAD_PLAN_H
#define STRATA_OFFLOAD_PLAN_H

/*
 * The plan as the pager carries it out: where every part of every tile rests, to the byte, and
 * the frames. include/strata/plan.h has the formula and the summary that users see.
 *
 * It is made in two halves, because the host budget has to hold all tables, and their size is
 * known only once they exist. strata_plan_begin() copies the model and lays out the device.
 * Then the schedule and the engine take their tables. strata_plan_finish() settles host and
 * NVMe.
 *
 * Thread: read only once finished.
 */

#include "io/store.h"
#include "offload/plan/residency.h"
#include "offload/plan/slots.h"
#include "strata/plan.h"

/* The kinds of chains that need host frames; include/strata/plan.h says how large each is. */
enum frame_kind {
    FRAME_FETCH,
    FRAME_GRAD,
    FRAME_UPDATE,
    FRAME_PARK,
    FRAME_STASH,
    FRAME_KIND_COUNT
};

/* More frames of one kind made no simulated step faster. Tables have an entry for each. */
#define STRATA_MAX_FRAMES 8u

/* Device blocks for activations on their way. */
#define STRATA_MAX_STASH_FRAMES 8u

/* Ways to give AUTO parts homes in host RAM; see strata_plan_way_name(). Where no simulation
 * compares them, the first one is taken. */
#define STRATA_HOME_WAYS 6u

struct plan_desc {
    const strata_model_desc *model;
    strata_dtype compute_dtype;
    struct record_form record; /* of the states */
    uint32_t tile_elems;
    uint64_t device_bytes;
    uint64_t host_bytes;
    uint64_t nvme_bytes;
    uint64_t reserved_host_bytes;
    strata_tier want[STRATA_PART_COUNT]; /* AUTO: decide */
    strata_tier want_stash;
    struct shard shard;             /* of a rank; {0}: there is one */
    bool fold;                      /* states in host RAM may be kept one gradient behind */
    struct slots_desc slots;        /* durable: every state has a record in the store */
    const struct store_desc *store; /* NULL: no NVMe tier; places are filled in here */
    uint32_t skip; /* pass over so many ways to fill the device: host or NVMe had no room */
    uint32_t way;  /* below STRATA_HOME_WAYS */
};

/* Where one part of each tile rests. at: device, host: bytes into the arena; nvme: the place.
 */
struct homes {
    uint8_t *tier; /* strata_tier by tile */
    uint64_t *at;
};

struct offload_plan {
    struct tables tables;
    struct model model;
    struct residency residency;
    struct homes homes[STRATA_PART_COUNT];
    struct homes park; /* host or nvme; tiles of groups that park */
    bool fold;
    bool more_choices; /* the device can be filled in another way: desc.skip */
    bool open;         /* there are AUTO parts that desc.way decides about */
    strata_tier stash;
    uint64_t stash_at;        /* first block: in that tier's arena, or the store's place */
    uint32_t stash_frames;    /* device blocks on the way to and from there */
    uint64_t stash_frames_at; /* device */
    uint64_t scratch_at;      /* device */
    uint64_t pool_at;         /* device */
    uint64_t device_arena_bytes;
    uint64_t host_arena_bytes;
    uint64_t update_frame_at[STRATA_PART_COUNT]; /* where a part lies in an update frame */
    uint64_t frames_at[FRAME_KIND_COUNT];        /* host */
    uint64_t frame_stride[FRAME_KIND_COUNT];
    uint32_t frame_count[FRAME_KIND_COUNT];
    /* By tile, of what a commit has of it: a state record, or a frozen tile's parameters; 0:
     * nothing of it is in the store. */
    uint64_t *record_bytes;
    uint32_t slots; /* per record */
    bool durable;
    uint32_t new_commit_every; /* steps between commits of a store that is made for the plan */
    uint64_t *place_bytes;     /* by place */
    uint32_t place_count;
    strata_plan summary;
};

/* STRATA_E_INVALID, STRATA_E_NOMEM (device). On failure strata_plan_free() has been called. */
strata_status strata_plan_begin(struct offload_plan *out, const struct plan_desc *desc,
                                strata_error *error);

/* STRATA_E_NOMEM (host, nvme), STRATA_E_INVALID. The caller frees the plan either way. */
strata_status strata_plan_finish(struct offload_plan *plan, const struct plan_desc *desc,
                                 strata_error *error);

/*
 * The fastest of several ways by simulation, and the next best. A later way replaces an earlier
 * one only if its step is shorter by a hundredth: the simulation is no more exact than that.
 * Two ways whose steps are equal have led to the same plan and count as one.
 */
struct home_choice {
    uint32_t offered;
    uint32_t way;
    double step_s;
    uint32_t next_way;
    double next_s; /* 0: there is no other */
};
void strata_plan_offer(struct home_choice *choice, uint32_t way, double step_s);
/* Write the choice into the summary. */
void strata_plan_chosen(strata_plan *summary, const struct home_choice *choice);
/* A way in words: what goes to host RAM, in which order. Static storage. */
const char *strata_plan_way_name(uint32_t way);

/* Does every state rest on NVMe? Then a commit writes nothing that an update does not. */
bool strata_plan_states_on_nvme(const struct offload_plan *plan);

/* Does anything rest in a store? Once finished. */
bool strata_plan_uses_store(const struct offload_plan *plan);

/* The descriptor of the plan's store: base with places and records filled in; records is lent
 * to it. */
struct store_desc strata_plan_store(const struct offload_plan *plan,
                                    const struct store_desc *base,
                                    struct store_records *records);

/* The store's place of a tile's state record, or of a frozen tile's parameters, in one of its
 * slots. */
uint32_t strata_plan_record_place(const struct offload_plan *plan, uint32_t tile,
                                  uint32_t slot);

void strata_plan_free(struct offload_plan *plan);

/* What the bytes of a tile's group are. */
static inline const struct group_layout *strata_plan_layout(const struct offload_plan *plan,
                                                            uint32_t tile)
{
    return &plan->model.groups[plan->model.tiles[tile].group].layout;
}

/* How many tiles have such a part. Those of frozen groups, the last ones, have parameters only.
 */
static inline uint32_t strata_plan_tiles_with(const struct offload_plan *plan, strata_part part)
{
    return part == STRATA_PARAM ? plan->model.tile_count : plan->model.trained_tile_count;
}

static inline bool strata_plan_is_frozen(const struct offload_plan *plan, uint32_t tile)
{
    return tile >= plan->model.trained_tile_count;
}

/* Bytes of one part of a tile. */
uint64_t strata_plan_part_bytes(const struct offload_plan *plan, strata_part part,
                                uint32_t tile);

/* Add a part of a tile to what the summary says of its home. */
void strata_plan_count_home(struct offload_plan *plan, strata_part part, uint32_t tile);

/* Does the tile's state rest in the device? Then its gradient and parameters do too, and it is
 * updated there. */
static inline bool strata_plan_state_in_device(const struct offload_plan *plan, uint32_t tile)
{
    return plan->homes[STRATA_STATE].tier[tile] == STRATA_DEVICE;
}

/* Does the tile's update need a frame? It does if it runs on the host and one of the tile's
 * parts does not rest in host RAM. */
bool strata_plan_update_needs_frame(const struct offload_plan *plan, uint32_t tile);

/* True when the tile's state is kept one gradient behind (offload/schedule/schedule_update.c).
 * Then its gradients arrive in frames: of kind update if that has to hold new parameters as
 * well. */
bool strata_plan_folds(const struct offload_plan *plan, uint32_t tile);

#endif

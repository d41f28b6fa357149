/*
 * Updates: when they begin, what they do, and what the norm means for them.
 *
 * With clipping or a loss scale the factor of a step's gradient is known only with the norm of
 * the whole step. Waiting for it pushes all updates behind the last gradient; so an update may
 * be computed ahead, as if the verdict were "within the limit", from a state that can be gone
 * back to:
 *
 *   - A state that rests on NVMe is written to a slot beside the one before. Within the limit
 *     the new slot counts; over it, the update is done again from the old one, into a slot; a
 *     skipped step leaves the old one and makes the weights again from its master weights.
 *   - A state in host RAM has no second place. It is kept one gradient behind: an arriving
 *     gradient waits in a frame until the one at home has gone into the state with its scale,
 *     known by then (the fold); then weights are computed, and nothing else is written, and the
 *     new gradient takes its place at home. Over the limit the weights are computed again. A
 *     commit, a hash and the end of a run fold what is behind first.
 *   - Everything else is deferred.
 *
 * Once the norm of a step is or was over the limit, nothing more is computed ahead until a step
 * is within it: a function of the norms, never of time. The bits are the same in all cases.
 *
 * Reading ahead: an update may take a frame and read its state before its gradient is there. So
 * the drive has work while a backward begins. Such chains wait for the caller, and the caller
 * may wait for other chains that need a frame of this kind; so one frame always remains.
 *
 * Thread: the pager.
 */

#include "base/error.h"
#include "offload/schedule/schedule_state.h"

static bool waits_for_norm(const struct schedule *s)
{
    return s->mode != UPDATES_AT_ONCE;
}

enum verdict strata_schedule_verdict_on(const struct schedule *s, uint64_t step)
{
    return step < s->normed ? s->steps[step % STRATA_STEPS_KEPT].facts.verdict : VERDICT_NONE;
}

/* Is the scale of the step's gradient settled? */
static bool is_known(const struct schedule *s, uint64_t step)
{
    return !waits_for_norm(s) || step < s->normed;
}

static bool may_guess(const struct schedule *s, uint32_t tile)
{
    if (s->mode != UPDATES_AHEAD || s->doubt)
        return false;
    if (strata_schedule_folds(s, tile))
        return true;
    return home_tier(s, STRATA_STATE, tile) == STRATA_NVME &&
           strata_slots_spare(&s->slots, s->commit_every);
}

bool strata_schedule_awaits_norm(const struct schedule *s, uint32_t tile)
{
    return waits_for_norm(s) && !may_guess(s, tile);
}

/* The tile needs no more frames for this step. When this holds for all tiles, updates of the
 * next step may begin. */
static void frame_settled(struct schedule *s, uint32_t tile, uint64_t step)
{
    struct step_state *state = &s->steps[step % STRATA_STEPS_KEPT];
    if (s->tiles[tile].framed > step)
        return;
    s->tiles[tile].framed++;
    if (--state->unframed > 0)
        return;
    state->unframed = s->plan->model.trained_tile_count;
    s->framed++;
    strata_schedule_ready_tiles(s);
}

/* A state that is a gradient behind, or no longer is. */
static void set_behind(struct schedule *s, uint32_t tile, bool behind, uint64_t step)
{
    struct tile_state *state = &s->tiles[tile];
    s->behind_count += (uint32_t)behind - (uint32_t)state->behind;
    state->behind = behind;
    if (behind)
        state->behind_step = step;
}

/* The end of a tile's step. */

void strata_schedule_tile_updated(struct schedule *s, uint32_t tile, uint64_t step)
{
    struct step_state *state = &s->steps[step % STRATA_STEPS_KEPT];
    if (--state->left == 0) {
        state->left = s->plan->model.trained_tile_count;
        s->updated++;
        strata_schedule_look(s, LOOK_PLACEMENTS); /* without overlap one waits for this */
    }
    strata_schedule_ready_tile(s, tile);
}

/* The weights of the chain's step are final and at home, and so is the state. If a commit is
 * due and the state is not written for it yet, the chain goes on with that. */
static void finish_tile(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    uint32_t tile = chain->tile;
    uint64_t step = chain->step;
    bool wanted = strata_schedule_commit_due(s, step) && !chain->state_written;
    if (s->tiles[tile].version == step)
        strata_schedule_new_version(s, tile); /* passed over: they are the ones before */
    if (!wanted) {
        strata_schedule_tile_updated(s, tile, step);
    } else if (s->tiles[tile].behind) {
        strata_schedule_begin(s, c, CHAIN_SETTLE, step, chain->key);
        strata_schedule_queue(s, c, OP_UPDATE, WHAT_STATE);
    } else {
        strata_schedule_begin(s, c, CHAIN_SAVE, step, chain->key);
        strata_schedule_take_frame(s, c);
    }
    frame_settled(s, tile, step);
}

/* The verdict came before the update was computed: the step changes nothing. */
static void pass_over(struct schedule *s, uint32_t c)
{
    s->ahead_frames -= s->chains[c].reads_ahead;
    strata_schedule_end(s, c);
    finish_tile(s, c);
}

static bool guessed(const struct chain *chain)
{
    return (chain->work & (UPDATE_APPLY | UPDATE_WEIGHTS)) != 0;
}

/* An update that was computed ahead has ended, and the verdict is known: it stands, or it is
 * done again. */
static void judge_guess(struct schedule *s, uint32_t c, enum verdict verdict)
{
    struct chain *chain = &s->chains[c];
    uint32_t tile = chain->tile;
    bool stands =
        verdict == VERDICT_WITHIN ? guessed(chain) : verdict == VERDICT_SKIP && !guessed(chain);
    if (verdict == VERDICT_SKIP && strata_schedule_folds(s, tile))
        set_behind(s, tile, false, 0);
    if (!stands) {
        s->counts.redone += guessed(chain);
        strata_schedule_begin(s, c, CHAIN_UPDATE, chain->step, chain->key);
        chain->again = verdict == VERDICT_SKIP ? VERDICT_SKIP : VERDICT_OVER;
        strata_schedule_take_frame(s, c);
        return;
    }
    if (chain->state_written)
        strata_schedule_state_final(s, c);
    finish_tile(s, c);
}

/* No op of an update's chain is under way or to come. */
static void end_update(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    enum verdict verdict = strata_schedule_verdict_on(s, chain->step);
    strata_schedule_end(s, c);
    if (!chain->ahead)
        finish_tile(s, c);
    else if (verdict == VERDICT_NONE)
        s->tiles[chain->tile].undecided = true;
    else
        judge_guess(s, c, verdict);
}

/* Beginning. */

static void queue_update(struct schedule *s, uint32_t c)
{
    s->ahead_frames -= s->chains[c].reads_ahead;
    s->chains[c].reads_ahead = false;
    s->chains[c].computed = true;
    strata_schedule_queue(s, c, OP_UPDATE, WHAT_STATE);
}

static void fetch_grad(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    if (chain->has_grad || s->tiles[chain->tile].grads <= chain->step)
        return;
    chain->has_grad = true;
    uint8_t tier = home_tier(s, STRATA_GRAD, chain->tile);
    if (strata_plan_state_in_device(s->plan, chain->tile))
        return;
    if (tier == STRATA_NVME)
        strata_schedule_queue(s, c, OP_NVME_READ, WHAT_GRAD);
    else if (tier == STRATA_DEVICE)
        strata_schedule_queue(s, c, OP_D2H, WHAT_GRAD);
}

/* Compute, as soon as all is there that it takes. */
static void compute_when_there(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    if (chain->pending > 0)
        return;
    if (chain->again == VERDICT_SKIP) {
        queue_update(s, c);
        return;
    }
    if (!chain->has_grad)
        return;
    if (strata_schedule_verdict_on(s, chain->step) == VERDICT_SKIP)
        pass_over(s, c);
    else if (chain->guesses || is_known(s, chain->step) ||
             (chain->reads_ahead && may_guess(s, chain->tile)))
        queue_update(s, c);
}

/* It has the frame it needs. */
static void start_update(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    chain->started = true;
    if (strata_schedule_folds(s, chain->tile))
        queue_update(s, c);
    else if (home_tier(s, STRATA_STATE, chain->tile) == STRATA_NVME)
        strata_schedule_queue(s, c, OP_NVME_READ, WHAT_STATE);
}

/* The verdict on the chain's step is known. If the op was given out before, and did something
 * else than the verdict asks for, the update is redone when it has ended. */
static void take_verdict(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    bool stands = strata_schedule_verdict_on(s, chain->step) == VERDICT_WITHIN;
    if (chain->ahead && !(stands && guessed(chain)))
        return;
    if (chain->ahead) {
        chain->ahead = false;
        if (chain->state_written)
            strata_schedule_state_final(s, c);
        if (chain->param_written)
            strata_schedule_new_version(s, chain->tile);
    }
    frame_settled(s, chain->tile, chain->step);
}

void strata_schedule_go_on_update(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    if (!chain->started)
        start_update(s, c);
    if (is_known(s, chain->step))
        take_verdict(s, c);
    if (chain->computed) {
        if (chain->pending == 0)
            end_update(s, c);
        return;
    }
    if (chain->again != VERDICT_SKIP)
        fetch_grad(s, c);
    compute_when_there(s, c);
}

/* The deadline of an update is the first use in the next step. */
static void begin_update(struct schedule *s, uint32_t tile)
{
    uint64_t step = s->tiles[tile].updates++;
    uint32_t first = s->group_first[s->plan->model.tiles[tile].group];
    strata_schedule_begin(s, s->first_update + tile, CHAIN_UPDATE, step,
                          strata_schedule_key(s, step + 1, first));
}

void strata_schedule_next_update(struct schedule *s, uint32_t tile)
{
    struct tile_state *state = &s->tiles[tile];
    uint32_t c = s->first_update + tile;
    if (state->undecided) {
        enum verdict verdict = strata_schedule_verdict_on(s, s->chains[c].step);
        state->undecided = verdict == VERDICT_NONE;
        if (!state->undecided)
            judge_guess(s, c, verdict);
        return;
    }
    uint64_t step = state->updates;
    if (step >= state->grads)
        return;
    if (strata_schedule_folds(s, tile)) {
        begin_update(s, tile);
        strata_schedule_hand_over(s, state->grad_chain, c);
        state->grad_chain = STRATA_NONE;
        strata_schedule_ready(s, c);
        strata_schedule_look(s, LOOK_PLACEMENTS); /* one waits for the gradient to leave */
        return;
    }
    if (s->framed < step)
        return;
    if (strata_schedule_verdict_on(s, step) == VERDICT_SKIP && waits_for_norm(s)) {
        begin_update(s, tile);
        pass_over(s, c);
    } else if (is_known(s, step) || may_guess(s, tile)) {
        begin_update(s, tile);
        s->chains[c].guesses = true;
        strata_schedule_take_frame(s, c);
    }
}

void strata_schedule_read_ahead(struct schedule *s)
{
    uint32_t frames = s->plan->frame_count[FRAME_UPDATE];
    uint32_t tiles = s->plan->model.trained_tile_count;
    while (!s->no_overlap && s->free_count[FRAME_UPDATE] > 0 &&
           s->waits[FRAME_UPDATE].count == 0 && s->ahead_frames + 1 < frames) {
        uint64_t step = s->next_ahead / tiles;
        uint32_t tile = s->ahead_order[s->next_ahead % tiles];
        const struct tile_state *state = &s->tiles[tile];
        uint32_t c = s->first_update + tile;
        /* Between steps the frames are the engine's, for hashes and reading out. */
        if (s->framed < step || !strata_schedule_asked_past(s, step, 0))
            return;
        bool begun = state->updates > step || home_tier(s, STRATA_STATE, tile) != STRATA_NVME ||
                     strata_schedule_verdict_on(s, step) != VERDICT_NONE;
        if (!begun && (s->chains[c].busy || state->updates < step || state->undecided))
            return;
        s->next_ahead++;
        if (begun)
            continue;
        begin_update(s, tile);
        s->chains[c].reads_ahead = true;
        s->ahead_frames++;
        strata_schedule_take_frame(s, c);
        strata_schedule_look(s, LOOK_AHEAD); /* once it has its frame */
        return;
    }
}

/* Computing. */

static bool choose_fold_work(struct schedule *s, struct chain *chain)
{
    enum verdict verdict = strata_schedule_verdict_on(s, chain->step);
    chain->work = s->tiles[chain->tile].behind ? UPDATE_FOLD : 0;
    if (verdict == VERDICT_SKIP)
        return chain->work != 0;
    chain->work |= UPDATE_TAKE;
    if (verdict != VERDICT_NONE || may_guess(s, chain->tile))
        chain->work |= UPDATE_WEIGHTS;
    return true;
}

bool strata_schedule_choose_work(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    bool folds = strata_schedule_folds(s, chain->tile);
    enum verdict verdict = strata_schedule_verdict_on(s, chain->step);
    bool left = true;
    if (chain->kind == CHAIN_SETTLE)
        chain->work = UPDATE_FOLD;
    else if (chain->again == VERDICT_SKIP)
        chain->work = UPDATE_REBUILD;
    else if (folds && chain->again == VERDICT_OVER)
        chain->work = UPDATE_WEIGHTS;
    else if (folds)
        left = choose_fold_work(s, chain);
    else if (verdict == VERDICT_SKIP && waits_for_norm(s))
        left = false;
    else
        chain->work = UPDATE_APPLY;
    if (!left) {
        chain->pending--;
        pass_over(s, c);
        return false;
    }
    chain->ahead = chain->kind == CHAIN_UPDATE && !is_known(s, chain->step);
    s->counts.ahead += chain->ahead && (chain->work & (UPDATE_APPLY | UPDATE_WEIGHTS)) != 0;
    return true;
}

static void param_at_home(struct schedule *s, uint32_t c)
{
    s->chains[c].param_written = true;
    if (!s->chains[c].ahead)
        strata_schedule_new_version(s, s->chains[c].tile);
}

/* An update has been computed: write what is not in place, save what a commit wants. */
static void note_computed(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    uint32_t tile = chain->tile;
    uint8_t param = home_tier(s, STRATA_PARAM, tile);
    bool in_device = strata_plan_state_in_device(s->plan, tile);
    if (chain->work & UPDATE_FOLD)
        set_behind(s, tile, false, 0);
    if (chain->work & UPDATE_TAKE)
        set_behind(s, tile, true, chain->step);
    if (chain->work & UPDATE_APPLY) {
        bool due = strata_schedule_commit_due(s, chain->step);
        if (in_device && due)
            strata_schedule_queue(s, c, OP_D2H, WHAT_STATE);
        else if (home_tier(s, STRATA_STATE, tile) == STRATA_NVME || (!in_device && due))
            strata_schedule_write_state(s, c);
    }
    if ((chain->work & (UPDATE_APPLY | UPDATE_WEIGHTS | UPDATE_REBUILD)) == 0)
        return;
    if (param == STRATA_NVME)
        strata_schedule_queue(s, c, OP_NVME_WRITE, WHAT_PARAM);
    else if (param == STRATA_DEVICE && !in_device)
        strata_schedule_queue(s, c, OP_H2D, WHAT_PARAM);
    else
        param_at_home(s, c);
}

/* The gradient that the state lacked is in it. */
static void note_folded(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    set_behind(s, chain->tile, false, 0);
    if (strata_schedule_commit_due(s, chain->step)) {
        strata_schedule_write_state(s, c);
        return;
    }
    strata_schedule_end(s, c); /* it holds no frame */
    strata_schedule_ready(s, c);
}

void strata_schedule_settle_done(struct schedule *s, uint32_t c, const struct op *op)
{
    if (op->kind == OP_UPDATE) {
        note_folded(s, c);
        return;
    }
    strata_schedule_state_written(s, c);
    strata_schedule_end_save(s, c);
}

void strata_schedule_update_done(struct schedule *s, uint32_t c, const struct op *op)
{
    struct chain *chain = &s->chains[c];
    if (op->kind == OP_NVME_READ || (op->kind == OP_D2H && op->what == WHAT_GRAD)) {
        compute_when_there(s, c);
        return;
    }
    if (op->kind == OP_UPDATE)
        note_computed(s, c);
    else if (op->kind == OP_D2H)
        strata_schedule_write_state(s, c);
    else if (op->what == WHAT_STATE)
        strata_schedule_state_written(s, c);
    else
        param_at_home(s, c);
    if (chain->pending == 0)
        end_update(s, c);
}

void strata_schedule_settle(struct schedule *s)
{
    for (uint32_t i = 0; s->behind_count > 0 && i < s->plan->model.trained_tile_count; i++) {
        uint32_t c = s->first_update + i;
        if (!s->tiles[i].behind || s->chains[c].busy)
            continue;
        strata_schedule_begin(s, c, CHAIN_SETTLE, s->tiles[i].behind_step, 0);
        strata_schedule_queue(s, c, OP_UPDATE, WHAT_STATE);
    }
}

bool strata_schedule_settled(const struct schedule *s)
{
    return s->behind_count == 0;
}

/* The verdict. */

void strata_schedule_verdict(struct schedule *s, enum verdict verdict)
{
    uint64_t step = s->normed++;
    s->steps[step % STRATA_STEPS_KEPT].facts.verdict = verdict;
    s->doubt = verdict != VERDICT_WITHIN;
    if (waits_for_norm(s))
        strata_schedule_ready_tiles(s);
    strata_schedule_look(s, LOOK_PLACEMENTS); /* gradients of the next step wait for it */
}

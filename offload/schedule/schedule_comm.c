/*
 * The comm lane's order.
 *
 * A collective ends only when all ranks have begun it, and a rank does one at a time. So all
 * ranks must have the same order, and no rank may wait for a collective before it has begun all
 * that come before it: otherwise ranks wait for each other. What arrives first differs from
 * rank to rank. So the order is fixed here, from the use list and the residency, which are the
 * same on all ranks.
 *
 * The position of a collective is how many uses of the step are over when it can be due at the
 * earliest: a reduction's, once the gradient's last use is; a gather's, once all placements in
 * its way have closed, and not before those of placements that opened before it. By position,
 * and at the same one in the order of placements, no collective needs a later one: a reduction
 * needs the computing of uses before it, hence gathers of placements that opened by then; a
 * gather needs placements before it closed, hence reductions at its position or before. The
 * block sums come last; what the next step gathers has waited for them.
 *
 * Thread: the pager.
 */

#include "base/error.h"
#include "offload/schedule/schedule_state.h"

/* Keeps the list in order. Events come nearly in order, so few have to move. */
static void insert_event(struct schedule *s, struct comm_event event)
{
    uint32_t at = s->comm_count++;
    while (at > 0 && s->comm[at - 1].position > event.position) {
        s->comm[at] = s->comm[at - 1];
        at--;
    }
    s->comm[at] = event;
}

void strata_schedule_order_comm(struct schedule *s)
{
    const struct residency *residency = &s->plan->residency;
    uint32_t position = 0;
    if (s->plan->model.ranks == 1)
        return;
    for (uint32_t i = 0; i < residency->count; i++)
        s->placements[i].comm = STRATA_NONE;
    for (uint32_t i = 0; i < residency->count; i++) {
        const struct placement *p = &residency->placements[i];
        for (uint32_t j = 0; j < i; j++) {
            const struct placement *q = &residency->placements[j];
            bool meet = p->offset < q->offset + q->bytes && q->offset < p->offset + p->bytes;
            if (meet && q->last_use + 1 > position)
                position = q->last_use + 1;
        }
        if (p->kind == PLACEMENT_PARAM)
            insert_event(s, (struct comm_event){OP_GATHER, i, position});
        else if (!p->park_out)
            insert_event(s, (struct comm_event){OP_REDUCE, i, p->last_use + 1});
    }
    insert_event(s, (struct comm_event){OP_SHARE, STRATA_NONE, s->plan->model.use_count + 1});
    for (uint32_t at = 0; at + 1 < s->comm_count; at++)
        s->placements[s->comm[at].placement].comm = at;
}

void strata_schedule_next_comm(struct schedule *s)
{
    uint32_t at = (uint32_t)(s->comm_next % s->comm_count);
    if (!s->comm_due[at])
        return;
    const struct comm_event *event = &s->comm[at];
    uint32_t c = event->placement == STRATA_NONE ? s->total_chain
                                                 : s->placements[event->placement].group_chain;
    s->comm_due[at] = false;
    s->chains[c].key = s->comm_next++;
    strata_schedule_queue(s, c, event->kind,
                          event->kind == OP_GATHER   ? WHAT_PARAM
                          : event->kind == OP_REDUCE ? WHAT_GRAD
                                                     : WHAT_NOTHING);
}

bool strata_schedule_comm(struct schedule *s, uint32_t c, enum op_kind kind)
{
    if (s->plan->model.ranks == 1)
        return false;
    uint32_t at = kind == OP_SHARE ? s->comm_count - 1 : s->placements[s->chains[c].owner].comm;
    STRATA_CHECK(at != STRATA_NONE && s->comm[at].kind == kind && !s->comm_due[at]);
    s->comm_due[at] = true;
    strata_schedule_look(s, LOOK_COMM);
    return true;
}

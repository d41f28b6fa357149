/*
 * The learning rate of a step. See rate.h.
 *
 * The rate affects bits of the weights, so nothing here comes from the C library's
 * mathematics, whose last digit differs between versions: the cosine is computed by its
 * series, with IEEE operations only.
 *
 * Thread: any.
 */

#include "train/rate.h"

static const double half_pi = 1.57079632679489661923;

/*
 * cos(x) for x from 0 to pi / 2. The first omitted term is x^26 / 26!, at most 3.1e-22, so the
 * only error is the rounding of the sum. Horner's rule from the smallest term.
 */
static double cosine_series(double x)
{
    double square = x * x;
    double sum = 1.0;
    for (int n = 24; n >= 2; n -= 2)
        sum = 1.0 - sum * square / (double)(n * (n - 1));
    return sum;
}

/* The share of the way from least to peak that is left when the share `done` of the steps is
 * over. */
static double share_left(enum rate_schedule schedule, double done)
{
    if (schedule == RATE_LINEAR)
        return 1.0 - done;
    /* (1 + cos(pi x)) / 2 is the square of cos(pi x / 2), which is within the series' range. */
    double root = done < 1.0 ? cosine_series(half_pi * done) : 0.0;
    return root * root;
}

double strata_rate_at(const struct rate *rate, uint64_t step)
{
    if (step < rate->warmup)
        return rate->peak * (double)step / (double)rate->warmup;
    uint64_t top = rate->warmup > 0 ? rate->warmup : 1;
    if (rate->schedule == RATE_CONSTANT || step <= top)
        return rate->peak;
    double done = step < rate->steps ? (double)(step - top) / (double)(rate->steps - top) : 1.0;
    return rate->least + (rate->peak - rate->least) * share_left(rate->schedule, done);
}

/*
 * Philox 4x32-10 and normal values from it, the same bits on every machine.
 *
 * Philox is ten rounds of two 32 x 32 bit products over a counter of four words. The constants
 * are from the paper named in the header; the tests check the answers that it publishes.
 *
 * Element e of a stream is word e mod 4 of the block with counter {e / 4 low, e / 4 high,
 * stream, 0} and key {seed low, seed high}. The word w stands for the probability p = (w + 1/2)
 * / 2^32, exact in double and never 0 or 1, and the value is the point below which a normal
 * variable lies with probability p. That costs a logarithm in the tails only, and uses one word
 * for one value, so no element depends on a neighbour, as it would in a method that rejects or
 * that makes pairs.
 *
 * The inverse is Wichura's algorithm AS 241 (PPND16, Applied Statistics 37, 1988), two
 * quotients of polynomials good to 1e-16. Its third, for p below 1e-11, is left out: the
 * smallest p here is 2^-33. Its logarithm is made here, from the exponent and a series, because
 * the C library's may differ in the last bit from one version to the next. Every operation is
 * an IEEE one in double, in the order written, without contraction; the product with stddev is
 * rounded to fp32 once.
 *
 * The work goes by batches of 256 elements, four doubles at a time: first the middle formula
 * for every value of the batch, then the values in a tail, packed together. The code is
 * compiled twice, for every x86-64 and for AVX2. No vector instruction changes a bit of an
 * IEEE operation, so both give the same bits, and so does any other machine. On one core an
 * element takes 10 ns with AVX2; one element at a time, with two branches that the CPU cannot
 * predict, it took 42 on the same machine.
 *
 * Thread: any.
 */

#include "base/random.h"

#include "base/cpu.h"

#include <stdalign.h>
#include <stddef.h>
#include <string.h>

#define PHILOX_ROUNDS 10
#define WORDS         4

/* Elements of a batch, and the Philox blocks that make them. */
#define BATCH  256
#define BLOCKS (BATCH / WORDS)
/* Values at a time. */
#define LANES 4

/* Part of a function that is compiled for several instruction sets. */
#define PART static inline __attribute__((always_inline))

/* Doubles and integers of 64 bits, LANES of them. Functions take pointers: how a vector is
 * passed by value depends on the instruction set. */
typedef double lanes __attribute__((vector_size(8 * LANES), may_alias));
typedef int64_t lanes_int __attribute__((vector_size(8 * LANES)));

static const double ln2 = 0.693147180559945309417232121458;
static const double sqrt_half = 0.707106781186547524400844362105;

/* log(x) for a normal x > 0: x = m x 2^e with m around 1, log m = 2 atanh((m - 1) / (m +
 * 1)). */
PART void log_of(lanes *out, const lanes *x)
{
    lanes_int bits = (lanes_int)*x;
    /* Bits in the mantissa of 2^52 are an integer as a double, exactly. */
    lanes exponent = (lanes)((bits >> 52) | 0x4330000000000000) - (0x1p52 + 1022);
    lanes m = (lanes)((bits & 0x000fffffffffffff) | 0x3fe0000000000000); /* [1/2, 1) */
    lanes_int low = m < sqrt_half;
    lanes_int one = (lanes_int)(m - m + 1);
    exponent -= (lanes)(one & low);
    m *= (lanes)(one & low) + 1;
    lanes s = (m - 1) / (m + 1);
    lanes square = s * s;
    /* |s| <= 0.172, so the term after the twelfth, s^24 / 25, is below 2e-20. */
    lanes sum = square * (1.0 / 23) + 1.0 / 21;
#pragma GCC unroll 10
    for (int odd = 19; odd >= 1; odd -= 2)
        sum = sum * square + 1.0 / odd;
    *out = exponent * ln2 + 2 * s * sum;
}

PART void polynomial(lanes *out, const double coefficients[8], const lanes *x)
{
    lanes sum = coefficients[7] * *x + coefficients[6];
#pragma GCC unroll 6
    for (int i = 5; i >= 0; i--)
        sum = sum * *x + coefficients[i];
    *out = sum;
}

/* For |q| = |p - 1/2| <= 0.425, the middle 85 % of all values. */
PART void normal_middle(lanes *out, const lanes *q)
{
    static const double a[8] = {
        3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
        1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
        3.3430575583588128105e4, 2.5090809287301226727e3,
    };
    static const double b[8] = {
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    };
    lanes above, below;
    lanes r = 0.180625 - *q * *q;
    polynomial(&above, a, &r);
    polynomial(&below, b, &r);
    *out = *q * above / below;
}

/* p: the smaller of the two tails' probabilities; out: the size of the value. */
PART void normal_tail(lanes *out, const lanes *p)
{
    static const double c[8] = {
        1.42343711074968357734e0,  4.63033784615654529590e0,  5.76949722146069140550e0,
        3.64784832476320460504e0,  1.27045825245236838258e0,  2.41780725177450611770e-1,
        2.27238449892691845833e-2, 7.74545014278341407640e-4,
    };
    static const double d[8] = {
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    };
    lanes above, below, r;
    log_of(&r, p);
    for (int i = 0; i < LANES; i++)
        r[i] = __builtin_sqrt(-r[i]);
    r -= 1.6;
    polynomial(&above, c, &r);
    polynomial(&below, d, &r);
    *out = above / below;
}

void strata_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c[WORDS] = {counter[0], counter[1], counter[2], counter[3]};
    uint32_t k[2] = {key[0], key[1]};
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t even = (uint64_t)0xD2511F53u * c[0];
        uint64_t odd = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[WORDS] = {(uint32_t)(odd >> 32) ^ c[1] ^ k[0], (uint32_t)odd,
                                (uint32_t)(even >> 32) ^ c[3] ^ k[1], (uint32_t)even};
        memcpy(c, next, sizeof c);
        k[0] += 0x9E3779B9u; /* the golden ratio */
        k[1] += 0xBB67AE85u; /* the square root of 3, less 1 */
    }
    memcpy(out, c, sizeof c);
}

/* The words of BLOCKS Philox blocks from `block` on: first word 0 of every block, then word 1
 * of every block, ... */
PART void philox_batch(uint32_t words[WORDS][BLOCKS], const uint32_t key[2], uint32_t stream,
                       uint64_t block)
{
    uint32_t(*c)[BLOCKS] = words;
    for (int i = 0; i < BLOCKS; i++) {
        c[0][i] = (uint32_t)(block + (uint64_t)i);
        c[1][i] = (uint32_t)((block + (uint64_t)i) >> 32);
        c[2][i] = stream;
        c[3][i] = 0;
    }
    uint32_t k[2] = {key[0], key[1]};
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        for (int i = 0; i < BLOCKS; i++) {
            uint64_t even = (uint64_t)0xD2511F53u * c[0][i];
            uint64_t odd = (uint64_t)0xCD9E8D57u * c[2][i];
            c[0][i] = (uint32_t)(odd >> 32) ^ c[1][i] ^ k[0];
            c[1][i] = (uint32_t)odd;
            c[2][i] = (uint32_t)(even >> 32) ^ c[3][i] ^ k[1];
            c[3][i] = (uint32_t)even;
        }
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
}

/* Compute the values of a batch that lie in a tail, packed together. The unused lanes at the
 * end get some valid probability. */
PART void fill_tails(double values[BATCH], const double q[BATCH])
{
    uint32_t at[BATCH + LANES];
    alignas(lanes) double p[BATCH + LANES];
    uint32_t count = 0;
    for (uint32_t i = 0; i < BATCH; i++) {
        at[count] = i;
        p[count] = 0.5 - __builtin_fabs(q[i]); /* exact: multiples of 2^-33 */
        count += __builtin_fabs(q[i]) > 0.425; /* no branch, which the CPU could not predict */
    }
    for (uint32_t i = 0; i < LANES; i++)
        p[count + i] = 0.25;
    for (uint32_t first = 0; first < count; first += LANES) {
        alignas(lanes) double sizes[LANES];
        normal_tail((lanes *)sizes, (const lanes *)&p[first]);
        for (uint32_t i = 0; i < LANES && first + i < count; i++)
            values[at[first + i]] = __builtin_copysign(sizes[i], q[at[first + i]]);
    }
}

/* BATCH values from element 4 x block on. */
PART void normal_batch(float out[BATCH], const uint32_t key[2], uint32_t stream, uint64_t block,
                       float stddev)
{
    uint32_t words[WORDS][BLOCKS];
    alignas(lanes) double q[BATCH];
    alignas(lanes) double values[BATCH];
    philox_batch(words, key, stream, block);
    for (int w = 0; w < WORDS; w++) {
        for (int i = 0; i < BLOCKS; i++) {
            /* As a signed number, which vector instructions can convert; every step is
             * exact. */
            double word = (double)(int32_t)(words[w][i] ^ 0x80000000u) + 0x1p31;
            q[w * BLOCKS + i] = (word + 0.5) * 0x1p-32 - 0.5;
        }
    }
    for (int i = 0; i < BATCH; i += LANES)
        normal_middle((lanes *)&values[i], (const lanes *)&q[i]);
    fill_tails(values, q);
    for (int i = 0; i < BLOCKS; i++)
        for (int w = 0; w < WORDS; w++)
            out[i * WORDS + w] = (float)(values[w * BLOCKS + i] * (double)stddev);
}

static void normal_batch_plain(float out[BATCH], const uint32_t key[2], uint32_t stream,
                               uint64_t block, float stddev)
{
    normal_batch(out, key, stream, block, stddev);
}

#if defined(__x86_64__)

__attribute__((target("avx2"))) static void normal_batch_avx2(float out[BATCH],
                                                              const uint32_t key[2],
                                                              uint32_t stream, uint64_t block,
                                                              float stddev)
{
    normal_batch(out, key, stream, block, stddev);
}

#else

/* Never called: strata_cpu_has_avx2() returns false. */
#    define normal_batch_avx2 normal_batch_plain

#endif

void strata_random_normal_by(bool avx2, uint64_t seed, uint32_t stream, uint64_t first,
                             uint64_t count, float stddev, float *out)
{
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    float batch[BATCH];
    while (count > 0) {
        uint64_t skip = first % WORDS;
        uint64_t part = count < BATCH - skip ? count : BATCH - skip;
        bool whole = part == BATCH;
        float *to = whole ? out : batch;
        if (avx2)
            normal_batch_avx2(to, key, stream, first / WORDS, stddev);
        else
            normal_batch_plain(to, key, stream, first / WORDS, stddev);
        if (!whole)
            memcpy(out, batch + skip, part * sizeof *out);
        out += part;
        first += part;
        count -= part;
    }
}

void strata_random_normal(uint64_t seed, uint32_t stream, uint64_t first, uint64_t count,
                          float stddev, float *out)
{
    strata_random_normal_by(strata_cpu_has_avx2(), seed, stream, first, count, stddev, out);
}

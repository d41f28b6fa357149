/*
 * Philox 4x32-10 and normal values from it, the same bits on every machine.
 *
 * Philox is ten rounds of two 32 x 32 bit products over a counter of four words; the constants
 * are those of the paper named in the header, and the tests hold its published answers.
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
 * Thread: any.
 */

#include "base/random.h"

#include <stddef.h>
#include <string.h>

#define PHILOX_ROUNDS 10
#define WORDS         4

static const double ln2 = 0.693147180559945309417232121458;
static const double sqrt_half = 0.707106781186547524400844362105;

/* log(x) for a normal x > 0: x = m x 2^e with m around 1, log m = 2 atanh((m - 1) / (m +
 * 1)). */
static double log_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int exponent = (int)(bits >> 52) - 1022;
    bits = (bits & 0x000fffffffffffffu) | 0x3fe0000000000000u; /* [1/2, 1) */
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m < sqrt_half) {
        m *= 2;
        exponent--;
    }
    double s = (m - 1) / (m + 1);
    double square = s * s;
    /* |s| <= 0.172, so the term after the twelfth, s^24 / 25, is below 2e-20. */
    double sum = 1.0 / 23;
    for (int odd = 21; odd >= 1; odd -= 2)
        sum = sum * square + 1.0 / odd;
    return exponent * ln2 + 2 * s * sum;
}

static double polynomial(const double coefficients[8], double x)
{
    double sum = coefficients[7];
    for (int i = 6; i >= 0; i--)
        sum = sum * x + coefficients[i];
    return sum;
}

/* Where q = p - 1/2 is at most 0.425 in size: the middle 85 of 100. */
static double normal_middle(double q)
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
    double r = 0.180625 - q * q;
    return q * polynomial(a, r) / polynomial(b, r);
}

/* p: the smaller of the two tails' probabilities. Returns the size of the value. */
static double normal_tail(double p)
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
    double r = __builtin_sqrt(-log_of(p)) - 1.6;
    return polynomial(c, r) / polynomial(d, r);
}

static double normal_of_word(uint32_t word)
{
    double p = ((double)word + 0.5) * 0x1p-32;
    double q = p - 0.5;
    if (q >= -0.425 && q <= 0.425)
        return normal_middle(q);
    return q < 0 ? -normal_tail(p) : normal_tail(1.0 - p);
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

void strata_random_normal(uint64_t seed, uint32_t stream, uint64_t first, uint64_t count,
                          float stddev, float *out)
{
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t words[WORDS];
    for (uint64_t i = 0; i < count; i++) {
        uint64_t element = first + i;
        if (i == 0 || element % WORDS == 0) {
            uint64_t block = element / WORDS;
            const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), stream, 0};
            strata_philox(counter, key, words);
        }
        out[i] = (float)(normal_of_word(words[element % WORDS]) * (double)stddev);
    }
}

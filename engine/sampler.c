/* sampler.c - penalty, temperature, top-k, top-p, min-p, one draw.
 *
 * Candidates are a max-heap of (logit, id): building it is linear and only as
 * many are popped as top-k or top-p keep, so no full sort of the vocabulary is
 * made.  Without top-k and top-p the draw walks the ids in order.  Draws come
 * from PCG32 (O'Neill 2014, "PCG: A Family of Simple Fast Space-Efficient
 * Statistically Good Algorithms", XSH-RR 64/32), stream 54 as in its demo.
 */
#include "engine/sampler.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

struct candidate {
    float logit;
    int32_t id;
};

struct tlr_sampler {
    struct tlr_generation g;
    uint32_t n_vocab;
    uint64_t state, inc; /* PCG32 */
    float *logits;       /* [n_vocab] after the penalty */
    struct candidate *heap; /* [n_vocab]; popped ones at its end, best last */
};

static uint32_t pcg32(struct tlr_sampler *s)
{
    uint64_t old = s->state;
    s->state = old * 6364136223846793005ULL + s->inc;
    uint32_t x = (uint32_t)(((old >> 18) ^ old) >> 27);
    uint32_t rot = (uint32_t)(old >> 59);
    return (x >> rot) | (x << ((32 - rot) & 31));
}

int tlr_sampler_new(struct tlr_sampler **out, const struct tlr_generation *g,
                    uint32_t n_vocab, uint64_t seed, struct tlr_err *err)
{
    *out = NULL;
    struct tlr_sampler *s = tlr_calloc(1, sizeof *s);
    if (!s) {
        return tlr_err_nomem(err, "sampler", sizeof *s);
    }
    s->g = *g;
    s->n_vocab = n_vocab;
    s->logits = tlr_calloc(n_vocab, sizeof *s->logits);
    s->heap = tlr_calloc(n_vocab, sizeof *s->heap);
    if (!s->logits || !s->heap) {
        tlr_sampler_free(s);
        return tlr_err_nomem(err, "sampler",
                             (unsigned long long)n_vocab * sizeof *s->heap);
    }
    s->inc = (54u << 1) | 1u;
    pcg32(s);
    s->state += seed;
    pcg32(s);
    *out = s;
    return 0;
}

void tlr_sampler_free(struct tlr_sampler *s)
{
    if (!s) {
        return;
    }
    tlr_free(s->logits);
    tlr_free(s->heap);
    tlr_free(s);
}

int32_t tlr_argmax(const float *x, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++) {
        if (x[i] > x[best] || (isnan(x[best]) && !isnan(x[i]))) {
            best = i;
        }
    }
    return (int32_t)best;
}

double tlr_log_sum_exp(const float *x, uint32_t n)
{
    double max = n ? (double)x[tlr_argmax(x, n)] : -INFINITY;
    if (!isfinite(max)) {
        return max;
    }
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        sum += exp((double)x[i] - max);
    }
    return max + log(sum);
}

/* ---- candidates ---- */

static bool before(struct candidate a, struct candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void sift_down(struct candidate *heap, uint32_t i, uint32_t n)
{
    struct candidate c = heap[i];
    for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(heap[child + 1], heap[child])) {
            child++;
        }
        if (!before(heap[child], c)) {
            break;
        }
        heap[i] = heap[child];
    }
    heap[i] = c;
}

/* Moves the best of heap[n] behind its end and restores the rest. */
static struct candidate pop(struct candidate *heap, uint32_t n)
{
    struct candidate top = heap[0];
    heap[0] = heap[n - 1];
    heap[n - 1] = top;
    sift_down(heap, 0, n - 1);
    return top;
}

/* Relative probability: 1 for the best candidate. */
static double weight(float logit, float max, float temperature)
{
    return exp(((double)logit - (double)max) / (double)temperature);
}

/* Uniform in [0, total). */
static double draw(struct tlr_sampler *s, double total)
{
    return (double)pcg32(s) * 0x1p-32 * total;
}

/* Neither top-k nor top-p: the ids in order. */
static int32_t sample_all(struct tlr_sampler *s, int32_t best)
{
    float max = s->logits[best], t = s->g.temperature;
    double total = 0.0;
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        double w = weight(s->logits[i], max, t);
        total += w >= (double)s->g.min_p ? w : 0.0;
    }
    double left = draw(s, total);
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        double w = weight(s->logits[i], max, t);
        if (w < (double)s->g.min_p || w == 0.0) {
            continue;
        }
        if (left < w) {
            return (int32_t)i;
        }
        left -= w;
    }
    return best; /* rounding left a sliver */
}

/* Sum of the weights that top-p is a share of: the top-k ones. Pops them. */
static double top_k_total(struct tlr_sampler *s, uint32_t n_keep, float max)
{
    uint32_t n = s->n_vocab;
    double total = 0.0;
    for (uint32_t i = 0; i < n_keep; i++) {
        total += weight(pop(s->heap, n - i).logit, max, s->g.temperature);
    }
    return total;
}

/* From the most best candidates, whose best logit is max: the smallest set that
 * holds top_p of total, min-p inside it, one draw.  popped: they lie at the
 * heap's end already. */
static int32_t draw_top(struct tlr_sampler *s, uint32_t most, bool popped,
                        double total, float max)
{
    uint32_t n = s->n_vocab, n_kept = 0;
    float t = s->g.temperature;
    double share = total * (double)s->g.top_p, sum = 0.0;
    for (uint32_t i = 0; i < most; i++) {
        struct candidate c = popped ? s->heap[n - 1 - i] : pop(s->heap, n - i);
        double w = weight(c.logit, max, t);
        if (i > 0 && (w < (double)s->g.min_p || w == 0.0)) {
            break;
        }
        n_kept++;
        sum += w;
        if (s->g.top_p < 1.0f && sum >= share) {
            break;
        }
    }
    double left = draw(s, sum);
    for (uint32_t i = 0; i < n_kept; i++) {
        struct candidate c = s->heap[n - 1 - i];
        left -= weight(c.logit, max, t);
        if (left < 0.0) {
            return c.id;
        }
    }
    return s->heap[n - 1].id; /* rounding left a sliver: the best */
}

static int32_t sample_top(struct tlr_sampler *s, int32_t best, bool has_k)
{
    uint32_t n = s->n_vocab;
    float max = s->logits[best], t = s->g.temperature;
    double total = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        s->heap[i] = (struct candidate){s->logits[i], (int32_t)i};
        total += weight(s->logits[i], max, t);
    }
    for (uint32_t i = n / 2; i-- > 0;) {
        sift_down(s->heap, i, n);
    }
    uint32_t most = has_k ? (uint32_t)s->g.top_k : n;
    if (has_k) {
        total = top_k_total(s, most, max);
    }
    return draw_top(s, most, has_k, total, max);
}

/* Keskar et al. 2019 (CTRL), section 4.1, with Hugging Face's rule for
 * negative logits; once per id however often it occurs. NaN becomes -inf. */
static void penalise(struct tlr_sampler *s, const float *logits,
                     const int32_t *history, size_t n_history)
{
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        s->logits[i] = isnan(logits[i]) ? -INFINITY : logits[i];
    }
    float p = s->g.repeat_penalty;
    for (size_t i = 0; p != 1.0f && i < n_history; i++) {
        int32_t id = history[i];
        if (id < 0 || (uint32_t)id >= s->n_vocab || isnan(logits[id])) {
            continue;
        }
        float x = logits[id];
        s->logits[id] = x > 0.0f ? x / p : x * p;
    }
}

int32_t tlr_sample(struct tlr_sampler *s, const float *logits,
                   const int32_t *history, size_t n_history)
{
    bool penalised = s->g.repeat_penalty != 1.0f && n_history > 0;
    bool greedy = !(s->g.temperature > 0.0f);
    if (greedy && !penalised) {
        return tlr_argmax(logits, s->n_vocab);
    }
    penalise(s, logits, history, n_history);
    int32_t best = tlr_argmax(s->logits, s->n_vocab);
    if (greedy || !isfinite(s->logits[best])) {
        return best;
    }
    bool has_k = s->g.top_k > 0 && (uint32_t)s->g.top_k < s->n_vocab;
    return has_k || s->g.top_p < 1.0f ? sample_top(s, best, has_k)
                                      : sample_all(s, best);
}

uint64_t tlr_sampler_state(const struct tlr_sampler *s)
{
    return s->state;
}

void tlr_sampler_set_state(struct tlr_sampler *s, uint64_t state)
{
    s->state = state;
}

uint32_t tlr_sampler_n_top(const struct tlr_sampler *s)
{
    if (s->g.repeat_penalty != 1.0f) {
        return 0;
    }
    if (!(s->g.temperature > 0.0f)) {
        return 1;
    }
    return s->g.top_k > 0 && (uint32_t)s->g.top_k < s->n_vocab
               ? (uint32_t)s->g.top_k
               : 0;
}

int32_t tlr_sample_top(struct tlr_sampler *s, const int32_t *ids,
                       const float *logits)
{
    uint32_t n_top = tlr_sampler_n_top(s), n = s->n_vocab;
    float max = logits[0];
    if (!(s->g.temperature > 0.0f) || !isfinite(max)) {
        return ids[0];
    }
    double total = 0.0;
    for (uint32_t i = 0; i < n_top; i++) {
        s->heap[n - 1 - i] = (struct candidate){logits[i], ids[i]};
        total += weight(logits[i], max, s->g.temperature);
    }
    return draw_top(s, n_top, true, total, max);
}

/* profile.c - marks on the calling thread's clock; what lies between two of
 * them belongs to the operation that the second one names.
 *
 * So the entries add up to the whole by construction, and a region's time is
 * that of its slowest thread.  A mark costs one reading of the clock, some tens
 * of nanoseconds; there are eight per layer.
 */
#include "engine/profile.h"

#include "base/clock.h"
#include "base/mem.h"
#include "engine/session.h"

void tlr_profile_begin(struct tlr_session *s)
{
    if (s->profile.ns) {
        s->profile.last_ns = tlr_now_ns();
    }
}

void tlr_profile_step(struct tlr_session *s, int n_tok)
{
    s->profile.n_steps++;
    s->profile.n_tok += (uint64_t)n_tok;
}

void tlr_profile_mark(struct tlr_session *s, uint32_t layer,
                      enum tlr_profile_op op)
{
    struct tlr_profiler *p = &s->profile;
    if (!p->ns) {
        return;
    }
    uint64_t now = tlr_now_ns(), spent = now - p->last_ns;
    p->ns[(size_t)layer * TLR_N_PROFILE_OPS + op] += spent;
    p->total_ns += spent;
    p->last_ns = now;
}

int tlr_profile_start(struct tlr_session *s, struct tlr_err *err)
{
    size_t n = ((size_t)s->model->config->n_layers + 1) * TLR_N_PROFILE_OPS;
    uint64_t *ns = tlr_calloc(n, sizeof *ns);
    if (!ns) {
        return tlr_err_nomem(err, "profile", n * sizeof *ns);
    }
    tlr_free(s->profile.ns);
    s->profile = (struct tlr_profiler){.ns = ns};
    return 0;
}

struct tlr_profile tlr_profile_read(const struct tlr_session *s)
{
    const struct tlr_profiler *p = &s->profile;
    return (struct tlr_profile){s->model->config->n_layers, p->n_steps,
                                p->n_tok, p->total_ns, p->ns};
}

int tlr_session_observe(struct tlr_session *s, tlr_observe_fn fn, void *ctx,
                        struct tlr_err *err)
{
    size_t n = tlr_session_rows(s) * s->model->config->ffn_dim;
    if (fn && !s->observer.down) {
        s->observer.down = tlr_calloc(n, sizeof *s->observer.down);
    }
    if (fn && !s->observer.down) {
        return tlr_err_nomem(err, "observer", n * sizeof *s->observer.down);
    }
    s->observer.fn = fn;
    s->observer.ctx = ctx;
    return 0;
}

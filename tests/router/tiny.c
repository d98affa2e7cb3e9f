#include "tests/router/tiny.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "convert/convert.h"
#include "tests/support/tlr_check.h"

struct tlr_model *tiny_model(enum tlr_type type)
{
    char path[512];
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_source *source = NULL;
    struct tlr_model *m = NULL;
    struct tlr_convert_options o = {.type = (int)type};
    struct tlr_convert_report report;
    snprintf(path, sizeof path, "%s/tiny-%d.bin", tlr_test_tmpdir(), (int)type);
    ck_assert_msg(!tlr_source_open(&source, "tests/golden/hf_folders/tiny-llama",
                                   &err), "%s", err.text);
    ck_assert_msg(!tlr_convert(source, path, &o, &report, &err), "%s",
                  err.text);
    tlr_source_close(source);
    ck_assert_msg(!tlr_model_open(&m, path, &err), "%s", err.text);
    remove(path);
    return m;
}

static float *random_floats(size_t n, uint64_t seed, float scale)
{
    struct tlr_rng rng = {.seed = seed};
    float *x = tlr_calloc(n, sizeof *x);
    ck_assert(x != NULL);
    for (size_t i = 0; i < n; i++)
        x[i] = tlr_rng_normal(&rng) * scale;
    return x;
}

struct tlr_router *tiny_router(const struct tlr_model *m,
                               enum tlr_policy_kind kind)
{
    uint32_t dim = tlr_model_config(m)->dim;
    struct tlr_router_weights w = {
        .kind = kind, .dim = dim, .n_hidden = 2 * dim, .temperature = 1.5f,
        .n_features = kind == TLR_POLICY_MLP_PLUS ? TLR_N_FEATURES : 0};
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_router *r = NULL;
    uint8_t *bytes = NULL;
    size_t len = 0;
    w.w1 = random_floats((size_t)w.n_hidden * (dim + w.n_features), 1, 0.3f);
    w.b1 = random_floats(w.n_hidden, 2, 0.1f);
    w.w2 = random_floats(w.n_hidden, 3, 0.3f);
    ck_assert_msg(!tlr_router_pack(&bytes, &len, &w, NULL,
                                   tlr_file_fingerprint(tlr_model_file(m)),
                                   "{}", &err), "%s", err.text);
    struct tlr_bytes b = {bytes, len};
    ck_assert_msg(!tlr_router_open(&r, b, "router", &err), "%s", err.text);
    tlr_free(bytes);
    tlr_free(w.w1);
    tlr_free(w.b1);
    tlr_free(w.w2);
    return r;
}

/* ---- the large model ---- */

static int32_t answer(const struct tiny_expert *e, const int32_t *ids, size_t n)
{
    uint64_t h = 99;
    for (size_t i = 0; i < n; i++)
        h = tlr_hash_u64(h, (uint64_t)ids[i]);
    return h % 64 == 0 ? e->end : (int32_t)(h % e->n_ids);
}

static int ask(void *self, const int32_t *ids, size_t n, int n_tok,
               struct tlr_expert_reply *out, struct tlr_err *err)
{
    struct tiny_expert *e = self;
    int32_t all[1024];
    if (++e->n_asks == e->fail_at)
        return tlr_err_set(err, TLR_EIO, "tiny: the line is cut");
    ck_assert_uint_le(n + (size_t)n_tok, 1024);
    memcpy(all, ids, n * sizeof *ids);
    for (int i = 0; i < n_tok; i++) {
        all[n] = out->ids[i] = answer(e, all, n);
        n++;
        out->n_tok = i + 1;
        if (out->ids[i] == e->end)
            break;
    }
    return 0;
}

static int ask_each(void *self, const int32_t *ids, size_t n, size_t first,
                    int32_t *out, struct tlr_err *err)
{
    struct tiny_expert *e = self;
    if (++e->n_asks == e->fail_at)
        return tlr_err_set(err, TLR_EIO, "tiny: the line is cut");
    for (size_t i = first; i < n; i++)
        out[i - first] = answer(e, ids, i + 1);
    return 0;
}

struct tlr_expert tiny_expert(struct tiny_expert *e, bool with_each)
{
    static const struct tlr_expert_ops one = {.ask = ask},
                                       each = {.ask = ask,
                                               .ask_each = ask_each};
    return (struct tlr_expert){
        .ops = with_each ? &each : &one, .self = e, .name = "tiny"};
}

/* ---- questions ---- */

const char *tiny_questions(int n)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/questions-%d.jsonl", tlr_test_tmpdir(), n);
    FILE *f = fopen(path, "w");
    ck_assert(f != NULL);
    for (int i = 0; i < n; i++)
        fprintf(f, "{\"question\":\"what is %d\",\"prompt\":\"what is the %d of "
                   "%d?\",\"choices\":{\"label\":[\"A\",\"B\"],\"text\":[\"one\","
                   "\"two\"]},\"answerKey\":\"%c\"}\n",
                i, i * 7, i * i, 'A' + i % 2);
    fclose(f);
    return path;
}

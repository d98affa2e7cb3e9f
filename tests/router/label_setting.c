/* label_setting.c - see label_setting.h. */
#include "tests/router/label_setting.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "convert/convert.h"
#include "engine/sampler.h"
#include "tests/support/cpu.h"
#include "tests/support/tlr_check.h"

static struct tlr_model *open_tiny(void)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_source *source = NULL;
    struct tlr_convert_options options = {.type = TLR_Q8};
    struct tlr_convert_report report;
    struct tlr_model *m = NULL;
    char path[600];
    snprintf(path, sizeof path, "%s/tiny.bin", tlr_test_tmpdir());
    must(tlr_source_open(&source, "tests/golden/hf_folders/tiny-llama", &err),
         &err);
    must(tlr_convert(source, path, &options, &report, &err), &err);
    tlr_source_close(source);
    must(tlr_model_open(&m, path, &err), &err);
    return m;
}

struct tlr_session *open_session(const struct tlr_model *m)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_session_options o = {.cpu_level = (int)tlr_test_cpu_level(),
                                    .n_threads = 1, .n_ctx = 512};
    struct tlr_session *s = NULL;
    must(tlr_session_new(&s, m, &o, &err), &err);
    return s;
}

/* ---- questions that lead to all cases ---- */

static char labels[5][2] = {"A", "B", "C", "D", "E"};
static char choices[5][8] = {"8", "f", "J", "~", "zz"};

/* What the model itself goes on with, which makes chains it is often right on. */
static void babble(const struct tlr_model *m, const char *prompt, char *out,
                   size_t cap)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_session *s = open_session(m);
    struct tlr_ids ids = {0};
    struct tlr_message message = {TLR_ROLE_USER, prompt};
    size_t len = 0;
    must(tlr_chat_encode(tlr_model_chat(m), tlr_model_tokenizer(m), &message, 1,
                         true, true, &ids, &err),
         &err);
    must(tlr_prefill(s, ids.ids, ids.n, TLR_STEP_LOGITS, &err), &err);
    for (int i = 0; i < 12; i++) {
        int32_t id = tlr_argmax(tlr_logits(s), tlr_model_n_ids(m));
        struct tlr_bytes b = tlr_token_bytes(tlr_model_tokenizer(m), id);
        if (!tlr_token_is_special(tlr_model_tokenizer(m), id) &&
            len + b.len + 1 < cap && tlr_utf8_valid(b.ptr, b.len)) {
            memcpy(out + len, b.ptr, b.len);
            len += b.len;
        }
        must(tlr_decode(s, id, TLR_STEP_LOGITS, &err), &err);
    }
    out[len] = '\0';
    tlr_ids_clear(&ids);
    tlr_session_free(s);
}

static void make_questions(struct questions *q, const struct tlr_model *m)
{
    memset(q, 0, sizeof *q);
    q->list.items = q->items;
    q->list.n = N_ITEMS;
    q->list.hash = 99;
    for (int i = 0; i < N_ITEMS; i++) {
        struct tlr_item *item = &q->items[i];
        char own[200];
        snprintf(q->prompts[i], sizeof q->prompts[i], "Question %d?", i * 7);
        babble(m, q->prompts[i], own, sizeof own);
        snprintf(q->chains[i], sizeof q->chains[i],
                 "  %s the river. Therefore, the bridge%s \n", own,
                 i % 2 ? " was 1907" : " rose & rose (a)");
        item->prompt = q->prompts[i];
        item->chain = q->chains[i];
        item->answer = labels[i % 2];
        item->line = (size_t)i + 1;
        item->n_choices = 5;
        for (int k = 0; k < 5; k++) {
            item->labels[k] = labels[k];
            item->choices[k] = choices[k];
        }
    }
}

/* ---- a large model that is a table ---- */

static const struct tlr_model *table_model;

int32_t table_says(const int32_t *ids, size_t n, int32_t next)
{
    uint64_t h = tlr_hash_u64((uint64_t)n, (uint64_t)ids[n - 1]);
    return h % 2 ? next : (int32_t)(h >> 8) & 255;
}

static int table_each(void *self, const int32_t *ids, size_t n, size_t first,
                      const int32_t *want, int32_t *out, float *p,
                      struct tlr_err *err)
{
    (void)self;
    (void)err;
    for (size_t i = first; i < n; i++) {
        out[i - first] = table_says(ids, i + 1, want[i - first]);
        p[i - first] = 0.25f;
    }
    return 0;
}

/* Writes "abc..." and then ends. */
static int table_ask(void *self, const int32_t *ids, size_t n, int n_tok,
                     struct tlr_expert_reply *out, struct tlr_err *err)
{
    (void)self;
    (void)err;
    const struct tlr_tokenizer *tok = tlr_model_tokenizer(table_model);
    char letter = (char)('a' + n % 26);
    (void)ids;
    for (int i = 0; i < n_tok; i++) {
        bool is_last = n + (size_t)i >= 100;
        letter = (char)('a' + (n + (size_t)i) % 26);
        out->ids[i] = is_last ? tlr_model_generation(table_model)->eos[0]
                              : tlr_token_find(tok, &letter, 1);
        out->n_tok = i + 1;
        if (is_last)
            break;
    }
    return 0;
}

static const struct tlr_expert_ops table_ops = {.ask = table_ask,
                                                .score_each = table_each};

void setting_begin(struct setting *t)
{
    memset(t, 0, sizeof *t);
    t->m = open_tiny();
    table_model = t->m;
    t->q = tlr_calloc(1, sizeof *t->q);
    ck_assert(t->q != NULL);
    make_questions(t->q, t->m);
    t->o = (struct tlr_label_options){.path = "q", .task = TLR_TASK_CSQA,
                                      .n_completions = 2, .completion_tok = 12,
                                      .chain_tok = 80, .seed = 5};
    for (int i = 0; i < N_JOBS_MAX; i++) {
        t->experts[i] = (struct tlr_expert){.ops = &table_ops, .name = "table"};
        t->labellers[i] = (struct tlr_labeller){
            .options = &t->o, .slm = t->m, .session = open_session(t->m),
            .expert = &t->experts[i]};
    }
}

void setting_end(struct setting *t)
{
    for (int i = 0; i < N_JOBS_MAX; i++) {
        tlr_session_free(t->labellers[i].session);
        tlr_labeller_clear(&t->labellers[i]);
    }
    tlr_model_close(t->m);
    tlr_free(t->q);
}

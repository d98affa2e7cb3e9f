/* fuzz_serve_request.c - any bytes as the body of a request.  The first byte
 * chooses the wire format.  What is accepted keeps the promises that the
 * scheduler relies on; what is refused says why. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "convert/convert.h"
#include "net/serve_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CTX = 64 };

static void must(int rc, const struct tlr_err *err)
{
    if (rc) {
        fprintf(stderr, "%s\n", err->text);
        abort();
    }
}

/* A tiny model with a tokenizer and a template, for the process's life. */
static struct tlr_model *open_model(void)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_source *src = NULL;
    struct tlr_file *file = NULL;
    struct tlr_model *m = NULL;
    struct tlr_convert_report report;
    struct tlr_convert_options o = {.type = TLR_RECIPE_Q8};
    FILE *f = tmpfile();
    if (!f)
        abort();
    must(tlr_source_open(&src, "tests/golden/hf_folders/tiny-qwen2", &err),
         &err);
    must(tlr_convert_fd(src, fileno(f), "tiny", &o, &report, &err), &err);
    tlr_source_close(src);
    must(tlr_file_open_fd(&file, fileno(f), "tiny", NULL, &err), &err);
    must(tlr_model_from_file(&m, file, &err), &err);
    fclose(f);
    return m;
}

static void check_ask(const struct tlr_model *m, const struct tlr_job_ask *a)
{
    const struct tlr_generation *g = &a->generation;
    bool ok = a->prompt.n >= 1 && a->prompt.n < CTX && a->max_tokens >= 1 &&
              a->n_stops <= TLR_JOB_STOPS_MAX && a->n_top >= 0 &&
              a->n_top <= TLR_JOB_TOP_MAX && a->mode != TLR_LARGE_ONLY &&
              g->temperature >= 0 && g->top_p > 0 && g->top_p <= 1 &&
              g->top_k >= 0 && g->min_p >= 0 && g->min_p < 1 &&
              g->repeat_penalty > 0;
    for (size_t i = 0; i < a->prompt.n; i++)
        ok = ok && a->prompt.ids[i] >= 0 &&
             (uint32_t)a->prompt.ids[i] < tlr_model_n_ids(m);
    for (int i = 0; i < a->n_stops; i++)
        ok = ok && a->stops[i].len > 0;
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tlr_model *m;
    if (!m)
        m = open_model();
    if (size < 1)
        return 0;
    struct tlr_request_limits limits = {.model = m, .n_ctx = CTX,
                                        .mode = TLR_SMALL_ONLY,
                                        .policy.kind = TLR_POLICY_ENTROPY};
    struct tlr_bytes body = {data + 1, size - 1};
    struct tlr_fault fault = {.status = 0};
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_request q;
    struct tlr_ids ids = {NULL, 0, 0};
    int kind = data[0] % 5, rc;
    if (kind == 3) {
        rc = tlr_request_tokenize(&ids, body, &limits, &fault, &err);
    } else if (kind == 4) {
        rc = tlr_request_detokenize(&ids, body, &limits, &fault, &err);
    } else {
        rc = tlr_request_parse(&q, (enum tlr_serve_api)kind, body, &limits,
                               &fault, &err);
        if (!rc)
            check_ask(m, &q.ask);
        tlr_request_clear(&q);
    }
    tlr_ids_clear(&ids);
    if (rc && fault.status < 400 && !err.text[0])
        abort();
    return 0;
}

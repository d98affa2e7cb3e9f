/* router_bench.c - what a router costs: `make bench-router`.
 *
 * Training: the time of `tlr train`'s defaults on random states of a given width,
 * learnable up to noise, twice from the same seed, whose bits must agree.
 *
 * Deciding: what the trained routers take of a step of the small model, as the
 * joint loop accounts for it, on random weights in the shape of Qwen2.5-0.5B.
 * They never ask (tau 0), so every position pays for its whole step.
 *
 * One JSON object a line.
 */
#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/pool.h"
#include "bench/random_model.h"
#include "cli/cli.h"
#include "router/citer.h"
#include "router/dataset.h"
#include "router/decode.h"
#include "router/train.h"

enum { GROUP_ROWS = 100, N_PROMPT = 128, N_STEPS = 256, N_ROUNDS = 5 };

struct args {
    uint32_t n_rows, epochs; /* epochs 0: the default, with early stopping */
    int n_threads;
};

struct bench {
    struct args a;
    struct tlr_model *model;
    struct tlr_session *session;
    char path[4096]; /* of the dataset */
    struct tlr_router *routers[2];
};

static const enum tlr_policy_kind kinds[] = {TLR_POLICY_MLP,
                                             TLR_POLICY_MLP_PLUS};

/* ---- states ---- */

/* About normal, from four uniform numbers. */
static float noise(uint64_t seed, uint64_t i)
{
    uint64_t h = tlr_hash_u64(seed, i);
    float sum = 0;
    for (int k = 0; k < 4; k++, h >>= 16)
        sum += (float)(h & 0xffff) / 65536.0f - 0.5f;
    return sum * 1.7320508f;
}

/* A state, and the label that one direction of it makes, behind noise: a fifth of
 * the rows is to ask. */
static void make_row(struct tlr_row *row, float *x, uint32_t dim, uint64_t at)
{
    float along = 0;
    for (uint32_t i = 0; i < dim; i++) {
        x[i] = noise(11, at * dim + i);
        along += x[i] * noise(12, i);
    }
    *row = (struct tlr_row){.what = TLR_CASE_SLM_RIGHT, .weight = 1,
                            .p_slm = 0.5f, .p_llm = 0.5f, .slm = 1, .llm = 1,
                            .gold = 1};
    row->label = along / sqrtf((float)dim) + noise(13, at) > -1.2f;
    if (!row->label)
        row->what = TLR_CASE_LLM_RIGHT;
    row->signals = (struct tlr_signals){.entropy = 1, .max_prob = 0.5f,
                                        .margin = 0.25f};
    for (int i = 0; i < TLR_N_FEATURES; i++)
        row->features[i] = noise(14, at * TLR_N_FEATURES + (uint64_t)i);
}

static int write_states(struct bench *b, struct tlr_err *err)
{
    struct tlr_dataset_info info = {
        .dim = tlr_model_config(b->model)->dim, .source = 1,
        .fingerprint = tlr_file_fingerprint(tlr_model_file(b->model))};
    struct tlr_dataset_writer *w = NULL;
    struct tlr_row *rows = tlr_calloc(GROUP_ROWS, sizeof *rows);
    float *x = tlr_calloc((size_t)GROUP_ROWS * info.dim, sizeof *x);
    uint32_t n_groups;
    int rc = rows && x ? tlr_dataset_append(&w, b->path, &info, &n_groups, err)
                       : tlr_err_nomem(err, "states", GROUP_ROWS * info.dim);
    for (uint32_t at = 0; at < b->a.n_rows && !rc; at += GROUP_ROWS) {
        uint32_t left = b->a.n_rows - at;
        uint32_t n = left < GROUP_ROWS ? left : GROUP_ROWS;
        for (uint32_t i = 0; i < n; i++)
            make_row(&rows[i], x + (size_t)i * info.dim, info.dim, at + i);
        rc = tlr_dataset_group(w, at / GROUP_ROWS, rows, x, n, err);
    }
    if (w && rc)
        tlr_dataset_close(w, NULL);
    else if (w)
        rc = tlr_dataset_close(w, err);
    tlr_free(rows);
    tlr_free(x);
    return rc;
}

/* ---- training ---- */

static int train_once(const struct bench *b, const struct tlr_dataset *d,
                      enum tlr_policy_kind kind, uint8_t **bytes, size_t *len,
                      json_t *row, struct tlr_err *err)
{
    struct tlr_train_options o;
    struct tlr_router_weights w;
    struct tlr_calibration calibration;
    struct tlr_train_report report;
    tlr_train_defaults(&o, kind);
    o.n_threads = b->a.n_threads;
    if (b->a.epochs)
        o.epochs = b->a.epochs;
    uint64_t begun = tlr_now_ns();
    int rc = tlr_train(d, &o, &w, &calibration, &report, err);
    double seconds = tlr_ms_between(begun, tlr_now_ns()) / 1000;
    if (rc)
        return rc;
    rc = tlr_router_pack(bytes, len, &w, &calibration,
                         tlr_dataset_info(d)->fingerprint, "{}", err);
    tlr_router_weights_clear(&w);
    json_array_append_new(json_object_get(row, "seconds"), json_real(seconds));
    json_object_set_new(row, "epochs", json_integer(report.epochs));
    json_object_set_new(row, "parameters",
                        json_integer((json_int_t)report.n_parameters));
    json_object_set_new(row, "auroc", json_real(report.auroc));
    return rc;
}

static void print(json_t *row)
{
    json_dumpf(row, stdout, JSON_REAL_PRECISION(5) | JSON_PRESERVE_ORDER);
    fputc('\n', stdout);
    fflush(stdout);
}

/* Twice; the first result is kept for the steps. */
static int measure_training(struct bench *b, const struct tlr_dataset *d, int k,
                            struct tlr_err *err)
{
    uint8_t *bytes[2] = {NULL, NULL};
    size_t len[2] = {0, 0};
    json_t *row = json_pack("{s:s, s:s, s:I, s:I, s:i, s:[]}", "what", "train",
                            "policy", tlr_policy_name(kinds[k]), "rows",
                            (json_int_t)b->a.n_rows, "width",
                            (json_int_t)tlr_dataset_info(d)->dim, "threads",
                            b->a.n_threads, "seconds");
    int rc = row ? 0 : tlr_err_nomem(err, "row", 0);
    for (int i = 0; i < 2 && !rc; i++)
        rc = train_once(b, d, kinds[k], &bytes[i], &len[i], row, err);
    bool same = !rc && len[0] == len[1] && !memcmp(bytes[0], bytes[1], len[0]);
    json_object_set_new(row, "same_bits", json_boolean(same));
    if (!rc)
        print(row);
    if (!rc && !same)
        rc = tlr_err_set(err, TLR_EMISMATCH, "two runs of one seed differ");
    if (!rc)
        rc = tlr_router_open(&b->routers[k],
                             (struct tlr_bytes){bytes[0], len[0]}, "trained",
                             err);
    json_decref(row);
    tlr_free(bytes[0]);
    tlr_free(bytes[1]);
    return rc;
}

/* ---- deciding ---- */

struct cost {
    double slm_us, router_us;
};

static int time_steps(struct bench *b, const struct tlr_policy *p,
                      struct cost *out, struct tlr_err *err)
{
    struct tlr_joint_options o = {.mode = TLR_JOINT, .policy = *p};
    struct tlr_joint *j = NULL;
    struct tlr_joint_token t;
    int32_t prompt[N_PROMPT];
    for (int i = 0; i < N_PROMPT; i++)
        prompt[i] = (int32_t)(tlr_hash_u64(3, (uint64_t)i) %
                              tlr_model_n_ids(b->model));
    int rc = tlr_rewind(b->session, 0, err);
    rc = rc ? rc : tlr_prefill(b->session, prompt, N_PROMPT, 0, err);
    rc = rc ? rc : tlr_joint_new(&j, b->session, b->model, &o, err);
    for (int i = 0; i < N_STEPS && !rc; i++)
        rc = tlr_joint_next(j, &t, err);
    if (!rc) {
        struct tlr_joint_totals sum = tlr_joint_read(j);
        out->slm_us = (double)sum.slm_ns / 1e3 / N_STEPS;
        out->router_us = (double)sum.router_ns / 1e3 / N_STEPS;
    }
    tlr_joint_free(j);
    return rc;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Medians of rounds in which mlp and mlp+ take turns. */
static int measure_steps(struct bench *b, struct tlr_err *err)
{
    struct tlr_session_options so = TLR_SESSION_OPTIONS_INIT;
    double slm[2][N_ROUNDS], router[2][N_ROUNDS];
    so.n_ctx = 1024;
    so.n_threads = b->a.n_threads;
    int rc = tlr_session_new(&b->session, b->model, &so, err);
    for (int r = 0; r < N_ROUNDS && !rc; r++)
        for (int k = 0; k < 2 && !rc; k++) {
            struct tlr_policy p = {.kind = kinds[k], .router = b->routers[k]};
            struct cost c = {0, 0};
            rc = time_steps(b, &p, &c, err);
            slm[k][r] = c.slm_us;
            router[k][r] = c.router_us;
        }
    for (int k = 0; k < 2 && !rc; k++) {
        qsort(slm[k], N_ROUNDS, sizeof slm[k][0], compare_doubles);
        qsort(router[k], N_ROUNDS, sizeof router[k][0], compare_doubles);
        json_t *row = json_pack(
            "{s:s, s:s, s:f, s:f, s:f, s:f, s:f}", "what", "step", "policy",
            tlr_policy_name(kinds[k]), "slm_us", slm[k][N_ROUNDS / 2],
            "router_us", router[k][N_ROUNDS / 2], "router_us_min", router[k][0],
            "router_us_max", router[k][N_ROUNDS - 1], "share",
            router[k][N_ROUNDS / 2] / slm[k][N_ROUNDS / 2]);
        if (row)
            print(row);
        json_decref(row);
    }
    return rc;
}

/* ---- the command line ---- */

static uint32_t number(const char *text, long least, long most)
{
    char *end;
    long v = strtol(text, &end, 10);
    if (end == text || *end || v < least || v > most) {
        fprintf(stderr, "router: expected a number from %ld to %ld, found "
                        "'%s'\n", least, most, text);
        exit(2);
    }
    return (uint32_t)v;
}

static void parse(struct args *a, int argc, char **argv)
{
    static const struct option options[] = {
        {"rows", required_argument, NULL, 'r'},
        {"epochs", required_argument, NULL, 'e'},
        {"threads", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) >= 0;) {
        if (c == 'r')
            a->n_rows = number(optarg, 1000, 10000000);
        else if (c == 'e')
            a->epochs = number(optarg, 1, 1000);
        else if (c == 't')
            a->n_threads = (int)number(optarg, 1, tlr_max_threads());
        else {
            fputs("usage: bench_router [--rows N] [--epochs N] [--threads N]\n",
                  c == 'h' ? stdout : stderr);
            exit(c == 'h' ? 0 : 2);
        }
    }
}

static int measure(struct bench *b, struct tlr_err *err)
{
    struct tlr_dataset *d = NULL;
    int rc = tlr_bench_random_model(&b->model, "qwen2.5-0.5b", err);
    fprintf(stderr, "making %u states ...\n", (unsigned)b->a.n_rows);
    rc = rc ? rc : write_states(b, err);
    rc = rc ? rc : tlr_dataset_open(&d, b->path, err);
    for (int k = 0; k < 2 && !rc; k++)
        rc = measure_training(b, d, k, err);
    tlr_dataset_free(d);
    return rc ? rc : measure_steps(b, err);
}

int main(int argc, char **argv)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct bench b = {.a = {.n_rows = 100000,
                            .n_threads = tlr_default_threads()}};
    const char *folder = getenv("TMPDIR");
    cli_fix_blas(argv);
    parse(&b.a, argc, argv);
    snprintf(b.path, sizeof b.path, "%s/tlr-router-XXXXXX",
             folder ? folder : "/tmp");
    int fd = mkstemp(b.path);
    int rc = fd < 0 ? tlr_err_set(&err, TLR_EIO, "%s: no temporary file", b.path)
                    : 0;
    if (fd >= 0) {
        close(fd);
        rc = measure(&b, &err);
        unlink(b.path);
    }
    if (rc)
        fprintf(stderr, "router: %s\n", err.text);
    tlr_router_free(b.routers[0]);
    tlr_router_free(b.routers[1]);
    tlr_session_free(b.session);
    tlr_model_close(b.model);
    return rc ? 1 : 0;
}

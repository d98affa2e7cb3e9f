/* common.c - from the common options to a model and a session's options. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/pool.h"
#include "cli/cli.h"
#include "cli/output.h"

/* "ref, avx2": those that this machine has. */
static void level_names(char *out, size_t cap)
{
    size_t n = 0;
    out[0] = '\0';
    for (int i = 0; i < TLR_N_CPU_LEVELS && n < cap; i++)
        if (tlr_cpu_has((enum tlr_cpu_level)i))
            n += (size_t)snprintf(out + n, cap - n, "%s%s", n ? ", " : "",
                                  tlr_cpu_level_name((enum tlr_cpu_level)i));
}

static int choose_level(const char *option, int *out, struct tlr_err *err)
{
    const char *from = "--cpu", *name = option;
    if (!name) {
        from = "TLR_CPU";
        name = getenv("TLR_CPU");
    }
    *out = -1;
    if (!name || !name[0] || strcmp(name, "auto") == 0)
        return 0;
    char has[128];
    enum tlr_cpu_level level;
    level_names(has, sizeof has);
    if (!tlr_cpu_level_parse(name, &level))
        return tlr_err_set(err, TLR_EUSAGE,
                           "%s: no level is called '%s'; this machine has %s",
                           from, name, has);
    if (!tlr_cpu_has(level))
        return tlr_err_set(err, TLR_EUSAGE,
                           "%s: this machine cannot run %s; it has %s", from,
                           name, has);
    *out = (int)level;
    return 0;
}

int cli_session_options(struct tlr_session_options *out,
                        const struct cli_session_args *args,
                        struct tlr_err *err)
{
    *out = (struct tlr_session_options){ .cpu_level = -1 };
    if (args->ctx != CLI_NO_INT)
        out->n_ctx = (uint32_t)args->ctx;
    if (args->threads != CLI_NO_INT) {
        int most = tlr_max_threads();
        if (args->threads > most)
            return tlr_err_set(err, TLR_EUSAGE,
                               "--threads: this process may use %d logical "
                               "processors, found %lld", most,
                               (long long)args->threads);
        out->n_threads = (int)args->threads;
    }
    static const struct {
        const char *name;
        int value;
    } kvs[] = { { "f32", TLR_KV_F32 }, { "f16", TLR_KV_F16 },
                { "q8", TLR_KV_Q8 } },
      acts[] = { { "int8", TLR_ACT_INT8 }, { "int16", TLR_ACT_INT16 } };
    for (size_t i = 0; args->kv && i < CLI_COUNT(kvs); i++)
        if (strcmp(args->kv, kvs[i].name) == 0)
            out->kv = (enum tlr_kv_type)kvs[i].value;
    for (size_t i = 0; args->act && i < CLI_COUNT(acts); i++)
        if (strcmp(args->act, acts[i].name) == 0)
            out->act = (enum tlr_act)acts[i].value;
    return choose_level(args->cpu, &out->cpu_level, err);
}

/* Field 22 of /proc/self/stat: ticks from the start of the machine; the second
 * field may hold blanks and brackets, so count from the last bracket. */
static uint64_t started_ns(void)
{
#ifdef __linux__
    char text[1024];
    unsigned long long ticks;
    struct timespec boot, now;
    if (tlr_read_text(text, sizeof text, "/proc/self/stat") <= 0)
        return 0;
    const char *p = strrchr(text, ')');
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    if (!p || sscanf(p, " %llu", &ticks) != 1 ||
        clock_gettime(CLOCK_BOOTTIME, &boot) != 0 ||
        clock_gettime(CLOCK_MONOTONIC, &now) != 0)
        return 0;
    uint64_t age = (uint64_t)boot.tv_sec * 1000000000u + (uint64_t)boot.tv_nsec -
                   ticks * (1000000000u / (uint64_t)sysconf(_SC_CLK_TCK));
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec - age;
#else
    return 0;
#endif
}

double cli_ms_since_start(uint64_t at_ns)
{
    uint64_t from = started_ns();
    return from > 0 && from < at_ns ? tlr_ms_between(from, at_ns) : 0;
}

int cli_model_open(struct tlr_model **out, const char *path, bool load,
                   struct tlr_err *err)
{
    if (load)
        return tlr_model_open(out, path, err);
    struct tlr_file_options lazy = { .populate = false };
    struct tlr_file *file;
    int rc = tlr_file_open(&file, path, &lazy, err);
    return rc ? rc : tlr_model_from_file(out, file, err);
}

int cli_check_can_talk(const struct tlr_model *m, const char *path, bool raw,
                       struct tlr_err *err)
{
    if (!tlr_model_tokenizer(m))
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: carries no tokenizer, so it can only be "
                           "measured (tlr bench)", path);
    if (!raw && !tlr_model_chat(m))
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: carries no chat template that tlr knows; use "
                           "tlr run --raw", path);
    return 0;
}

/* Memory that could be had without swapping; 0 if unknown. */
static uint64_t available_bytes(void)
{
    uint64_t kib = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    if (f) {
        char line[128];
        while (fgets(line, sizeof line, f))
            if (sscanf(line, "MemAvailable: %" SCNu64 " kB", &kib) == 1)
                break;
        fclose(f);
    }
    return kib * 1024;
}

int cli_print_estimate(const char *path, const struct tlr_session_options *o,
                       bool json, struct tlr_err *err)
{
    struct tlr_model *m = NULL;
    struct tlr_memory mem;
    int rc = cli_model_open(&m, path, false, err);
    if (!rc)
        rc = tlr_session_estimate(m, o, &mem, err);
    if (rc)
        goto out;
    uint64_t has = available_bytes();
    if (json) {
        json_t *j = json_object();
        cli_json_put(j, "weights_bytes", json_integer((json_int_t)mem.weights_bytes));
        cli_json_put(j, "kv_bytes", json_integer((json_int_t)mem.kv_bytes));
        cli_json_put(j, "scratch_bytes", json_integer((json_int_t)mem.scratch_bytes));
        cli_json_put(j, "total_bytes", json_integer((json_int_t)mem.total_bytes));
        cli_json_put(j, "available_bytes",
                     has ? json_integer((json_int_t)has) : json_null());
        rc = cli_json_print(j, err);
        goto out;
    }
    char text[4][24];
    cli_printf("weights  %s\nKV cache %s\nscratch  %s\ntotal    %s\n",
               cli_bytes(text[0], sizeof text[0], mem.weights_bytes),
               cli_bytes(text[1], sizeof text[1], mem.kv_bytes),
               cli_bytes(text[2], sizeof text[2], mem.scratch_bytes),
               cli_bytes(text[3], sizeof text[3], mem.total_bytes));
    if (has)
        cli_printf("there is %s\n", cli_bytes(text[0], sizeof text[0], has));
out:
    tlr_model_close(m);
    return rc;
}

void cli_generation(struct tlr_generation *out, const struct tlr_model *m,
                    const struct cli_sampling_args *args)
{
    const struct tlr_generation *defaults = tlr_model_generation(m);
    if (defaults)
        *out = *defaults;
    else
        tlr_generation_default(out);
    if (!isnan(args->temp))
        out->temperature = (float)args->temp;
    if (args->top_k != CLI_NO_INT)
        out->top_k = (int)args->top_k;
    if (!isnan(args->top_p))
        out->top_p = (float)args->top_p;
    if (!isnan(args->min_p))
        out->min_p = (float)args->min_p;
    if (!isnan(args->repeat_penalty))
        out->repeat_penalty = (float)args->repeat_penalty;
}

uint64_t cli_seed(const struct cli_sampling_args *args)
{
    if (args->seed != CLI_NO_INT)
        return (uint64_t)args->seed;
    /* Within what --seed takes and a JSON number holds exactly. */
    return tlr_hash_u64(tlr_now_ns(), (uint64_t)getpid()) >> 12;
}

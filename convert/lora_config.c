/* lora_config.c - what a PEFT LoRA adapter says of itself.
 *
 * PEFT gives its variants (DoRA, biases, replaced modules, ...) keys of this
 * file, and every release adds some.  So the rule is the other way round: keys
 * that do not touch the merged weights are listed, and any other key that says
 * something is refused by name.
 *
 * Scale: alpha / r (Hu et al., arXiv 2106.09685, section 4.1) or alpha / sqrt(r)
 * (Kalajdzievski, arXiv 2312.03732).
 */
#include "convert/lora_config.h"

#include <math.h>
#include <string.h>

#include "convert/json_file.h"

/* Read below, or of no weight on the merged matrices. */
static const char *const harmless[] = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias",
    "corda_config", "ensure_weight_tying", "eva_config", "exclude_modules",
    "inference_mode", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout",
    "lora_ga_config", "megatron_core", "peft_type", "peft_version",
    "qalora_group_size", "r", "rank_pattern", "revision", "target_modules",
    "task_type", "use_rslora"};

static int unsupported(const char *where, const char *key,
                       const char *expected, const char *found,
                       struct tlr_err *err)
{
    return tlr_err_set(err, TLR_EUNSUPPORTED,
                       "%s: %.64s: expected %s, found %.64s; tlr merges plain "
                       "LoRA only: merge this adapter with PEFT "
                       "(merge_and_unload) and convert the result",
                       where, key, expected, found);
}

static bool is_harmless(const char *key)
{
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++) {
        if (strcmp(key, harmless[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* A key that is there and says nothing. */
static bool is_off(const json_t *value)
{
    return json_is_null(value) || json_is_false(value) ||
           (json_is_number(value) && json_number_value(value) == 0.0) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_string(value) && json_string_length(value) == 0);
}

static int check_unknown(const json_t *root, const char *where,
                         struct tlr_err *err)
{
    const char *key;
    json_t *value;
    void *iter = json_object_iter((json_t *)(uintptr_t)root);
    for (; iter; iter = json_object_iter_next((json_t *)(uintptr_t)root, iter)) {
        key = json_object_iter_key(iter);
        value = json_object_iter_value(iter);
        if (!is_harmless(key) && !is_off(value)) {
            const char *text = json_string_value(value);
            return unsupported(where, key, "nothing or false",
                               text ? text : tlr_json_type_name(value), err);
        }
    }
    return 0;
}

/* ---- kinds ---- */

/* PiSSA, OLoRA, CorDA, LoftQ, ... change the base before they train, and the
 * changed base is not in the folder. */
static int check_init(const json_t *root, const char *where,
                      struct tlr_err *err)
{
    static const char *const keep_base[] = {"gaussian", "eva", "orthogonal"};
    const json_t *value = json_object_get(root, "init_lora_weights");
    const char *text = json_string_value(value);
    if (!value || json_is_null(value) || json_is_boolean(value)) {
        return 0;
    }
    for (int i = 0; text && i < 3; i++) {
        if (strcmp(text, keep_base[i]) == 0) {
            return 0;
        }
    }
    return unsupported(where, "init_lora_weights",
                       "one that leaves the base as it is (true, false, "
                       "gaussian, eva, orthogonal)",
                       text ? text : tlr_json_type_name(value), err);
}

static int check_kind(const json_t *root, const char *where,
                      struct tlr_err *err)
{
    const char *type = NULL, *bias = "none";
    bool is_transposed = false;
    int rc;
    if ((rc = tlr_json_get_string(root, "peft_type", true, &type, where,
                                  err)) ||
        (rc = tlr_json_get_string(root, "bias", false, &bias, where, err)) ||
        (rc = tlr_json_get_bool(root, "fan_in_fan_out", &is_transposed, where,
                                err))) {
        return rc;
    }
    if (strcmp(type, "LORA") != 0) {
        return unsupported(where, "peft_type", "LORA", type, err);
    }
    if (strcmp(bias, "none") != 0) {
        return unsupported(where, "bias", "none", bias, err);
    }
    if (is_transposed) {
        return unsupported(where, "fan_in_fan_out", "false", "true", err);
    }
    rc = check_init(root, where, err);
    return rc ? rc : check_unknown(root, where, err);
}

/* ---- patterns ---- */

/* PEFT takes the keys as regular expressions that end at the module's name; a
 * name or the end of one needs no engine for them. */
static bool is_plain(const char *key)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.";
    return key[0] != '\0' && strspn(key, plain) == strlen(key);
}

static int read_pattern(const json_t **out, const json_t *root,
                        const char *key, bool is_rank, const char *where,
                        struct tlr_err *err)
{
    json_t *pattern = json_object_get(root, key);
    if (!pattern || json_is_null(pattern)) {
        return 0;
    }
    if (!json_is_object(pattern)) {
        return tlr_json_wrong(pattern, key, "an object", where, err);
    }
    const char *module;
    json_t *value;
    json_object_foreach(pattern, module, value)
    {
        if (!is_plain(module)) {
            return unsupported(where, key, "names of modules", module, err);
        }
        uint64_t rank = 0;
        double alpha = 0.0;
        int rc = is_rank ? tlr_json_get_u64(pattern, module, true,
                                            TLR_LORA_MAX_RANK, &rank, where,
                                            err)
                         : tlr_json_get_f64(pattern, module, true, &alpha,
                                            where, err);
        if (rc) {
            return rc;
        }
        if (is_rank && rank == 0) {
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: %s: %.64s: expected a rank of 1..%d, found "
                               "0; get the file again",
                               where, key, module, TLR_LORA_MAX_RANK);
        }
    }
    *out = pattern;
    return 0;
}

int tlr_lora_config_read(struct tlr_lora_config *out, const json_t *root,
                         const char *where, struct tlr_err *err)
{
    memset(out, 0, sizeof *out);
    uint64_t rank = 0;
    int rc;
    if ((rc = check_kind(root, where, err)) ||
        (rc = tlr_json_get_u64(root, "r", true, TLR_LORA_MAX_RANK, &rank,
                               where, err)) ||
        (rc = tlr_json_get_f64(root, "lora_alpha", true, &out->alpha, where,
                               err)) ||
        (rc = tlr_json_get_bool(root, "use_rslora", &out->is_rslora, where,
                                err)) ||
        (rc = read_pattern(&out->rank_pattern, root, "rank_pattern", true,
                           where, err)) ||
        (rc = read_pattern(&out->alpha_pattern, root, "alpha_pattern", false,
                           where, err))) {
        return rc;
    }
    if (rank == 0) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: r: expected a rank of 1..%d, found 0; get the "
                           "file again",
                           where, TLR_LORA_MAX_RANK);
    }
    out->rank = (uint32_t)rank;
    return 0;
}

/* The first key, in the file's order, that is the module's name or the end of
 * it after a dot; NULL when none is. */
static const json_t *find(const json_t *pattern, const char *module)
{
    void *iter = json_object_iter((json_t *)(uintptr_t)pattern);
    size_t len = strlen(module);
    for (; iter;
         iter = json_object_iter_next((json_t *)(uintptr_t)pattern, iter)) {
        const char *key = json_object_iter_key(iter);
        size_t n = strlen(key);
        if (n <= len && strcmp(module + len - n, key) == 0 &&
            (n == len || module[len - n - 1] == '.')) {
            return json_object_iter_value(iter);
        }
    }
    return NULL;
}

void tlr_lora_config_module(const struct tlr_lora_config *c,
                            const char *module, uint32_t *rank, float *scale)
{
    const json_t *r = find(c->rank_pattern, module);
    const json_t *alpha = find(c->alpha_pattern, module);
    *rank = r ? (uint32_t)json_integer_value(r) : c->rank;
    double a = alpha ? json_number_value(alpha) : c->alpha;
    double n = (double)*rank;
    *scale = (float)(a / (c->is_rslora ? sqrt(n) : n));
}

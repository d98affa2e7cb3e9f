/* test_lora.c - adapters that PEFT wrote, merged into both kinds of base: the
 * logits of PEFT's own merge, and every refusal by name.
 *
 * Golden data: tests/golden/lora (make.py beside).
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "convert/convert.h"
#include "convert/lora.h"
#include "convert/plan.h"
#include "tests/convert/helpers.h"
#include "tests/convert/parity.h"
#include "tests/support/tlr_check.h"

#define LORA "tests/golden/lora/"
#define FOLDERS "tests/golden/hf_folders/"
#define GGUFS "tests/golden/gguf/"
#define WEIGHTS "adapter_model.safetensors"

/* ---- the same model as PEFT's ---- */

/* tiny-llama3.gguf has the rows of q and k interleaved. */
static const struct {
    const char *base, *adapter;
} pairs[] = {
    {FOLDERS "tiny-llama3", "plain"},    {GGUFS "tiny-llama3.gguf", "plain"},
    {FOLDERS "tiny-qwen2", "patterns"},  {GGUFS "tiny-qwen2.gguf", "patterns"},
    {FOLDERS "tiny-llama", "upper"},
};

/* Both add in f32; the bound is that of the tests without an adapter, and the
 * adapter moves the logits by a thousand times as much. */
START_TEST(parity)
{
    char folder[128], expected[256];
    snprintf(folder, sizeof folder, LORA "%s", pairs[_i].adapter);
    snprintf(expected, sizeof expected, "%s/expected.json", folder);
    const char *bin = tmp_path("merged.bin");
    convert_to(pairs[_i].base, folder, bin, TLR_F32);
    double apart = logits_apart(bin, expected);
    ck_assert_msg(apart < 1e-4, "%s + %s: logits differ by %.3g of the largest",
                  pairs[_i].base, pairs[_i].adapter, apart);
    convert_to(pairs[_i].base, NULL, bin, TLR_F32);
    apart = logits_apart(bin, expected);
    ck_assert_msg(apart > 0.1, "%s moves logits by %.3g only",
                  pairs[_i].adapter, apart);
}
END_TEST

static struct tlr_source *open_pair(const char *base, const char *folder)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_source *s;
    ck_assert_msg(tlr_source_open(&s, base, &err) == 0, "%s", err.text);
    ck_assert_msg(tlr_source_add_lora(&s, folder, &err) == 0, "%s", err.text);
    return s;
}

/* What a matrix of the base carries over ends where the adapter touches it. */
START_TEST(types)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_source *s = open_pair(GGUFS "tiny-llama3.gguf", LORA "plain");
    struct tlr_convert_options keep = {.type = TLR_RECIPE_KEEP};
    struct tlr_plan plan;
    ck_assert_int_eq(tlr_plan_make(&plan, s, &keep, &err), 0);
    int n_merged = 0, n_kept = 0;
    for (uint32_t i = 0; i < plan.n; i++) {
        const struct tlr_plan_tensor *t = &plan.tensors[i];
        if (!t->want.is_matrix) {
            continue;
        }
        bool is_merged = strncmp(t->want.name, "blk.", 4) == 0;
        ck_assert_int_eq(t->from.exact < 0, is_merged);
        ck_assert_int_eq(t->type, is_merged ? (int)TLR_Q8 : t->from.exact);
        n_merged += is_merged;
        n_kept += !is_merged;
    }
    ck_assert_int_eq(n_merged, 14);
    ck_assert_int_eq(n_kept, 2);
    tlr_plan_clear(&plan);
    tlr_source_close(s);
    /* Rounded types pass through verification too. */
    static const int all[] = {TLR_RECIPE_KEEP, TLR_RECIPE_Q8, TLR_RECIPE_Q4,
                              TLR_Q4M, TLR_BF16};
    for (int i = 0; i < 5; i++) {
        convert_to(GGUFS "tiny-llama3.gguf", LORA "plain", tmp_path("t.bin"),
                   all[i]);
    }
}
END_TEST

static void expect_source(const json_t *entry, const char *name)
{
    char path[256], hex[65];
    size_t len;
    snprintf(path, sizeof path, LORA "plain/%s", name);
    uint8_t *data = slurp(path, &len);
    struct tlr_sha256 *sha;
    ck_assert_int_eq(tlr_sha256_begin(&sha, NULL), 0);
    ck_assert_int_eq(tlr_sha256_add(sha, data, len, NULL), 0);
    ck_assert_int_eq(tlr_sha256_end(sha, hex, NULL), 0);
    ck_assert_str_eq(json_string_value(json_object_get(entry, "name")), name);
    ck_assert_str_eq(json_string_value(json_object_get(entry, "sha256")), hex);
    free(data);
}

START_TEST(provenance)
{
    struct tlr_source *s = open_pair(FOLDERS "tiny-llama3", LORA "plain/");
    json_t *root = json_loads(s->provenance_json, 0, NULL);
    const json_t *lora =
        json_object_get(json_object_get(root, "lora"), "sources");
    ck_assert_uint_eq(json_array_size(lora), 2);
    expect_source(json_array_get(lora, 0), "adapter_config.json");
    expect_source(json_array_get(lora, 1), WEIGHTS);
    ck_assert_str_eq(json_string_value(json_object_get(root, "kind")),
                     "huggingface");
    ck_assert_uint_ge(json_array_size(json_object_get(root, "sources")), 4);
    json_decref(root);
    tlr_source_close(s);
}
END_TEST

/* ---- refusals ---- */

/* The base stays usable when the adapter is refused. */
static void expect_refused(const char *base, const char *folder, int code,
                           const char *part)
{
    struct tlr_err err = TLR_ERR_INIT, none = TLR_ERR_INIT;
    struct tlr_source *s;
    ck_assert_msg(tlr_source_open(&s, base, &err) == 0, "%s", err.text);
    const struct tlr_source *before = s;
    int rc = tlr_source_add_lora(&s, folder, &err);
    ck_assert_ptr_eq(s, before);
    expect_error(part, rc, &err, code, part);
    float row[64];
    ck_assert_int_eq(s->ops->read_rows(s, 0, 0, 1, row, &none), 0);
    tlr_source_close(s);
}

static const struct {
    const char *from, *to;
    int code;
    const char *part;
} bad_configs[] = {
    {"\"LORA\"", "\"LOHA\"", TLR_EUNSUPPORTED,
     "adapter_config.json: peft_type: expected LORA, found LOHA"},
    {"\"LORA\"", "null", TLR_EFORMAT, "peft_type is missing"},
    {"\"use_dora\": false", "\"use_dora\": true", TLR_EUNSUPPORTED,
     "use_dora: expected nothing or false, found true"},
    {"\"bias\": \"none\"", "\"bias\": \"lora_only\"", TLR_EUNSUPPORTED,
     "bias: expected none, found lora_only"},
    {"\"fan_in_fan_out\": false", "\"fan_in_fan_out\": true", TLR_EUNSUPPORTED,
     "fan_in_fan_out: expected false, found true"},
    {"\"modules_to_save\": null", "\"modules_to_save\": [\"lm_head\"]",
     TLR_EUNSUPPORTED, "modules_to_save: expected nothing or false, found a "
                       "list"},
    {"\"lora_bias\": false", "\"lora_bias\": true", TLR_EUNSUPPORTED,
     "lora_bias: expected nothing"},
    {"\"layer_replication\": null", "\"layer_replication\": [[0, 2]]",
     TLR_EUNSUPPORTED, "layer_replication: expected nothing"},
    {"\"use_bdlora\": null", "\"use_next_year\": \"much\"", TLR_EUNSUPPORTED,
     "use_next_year: expected nothing or false, found much"},
    {"\"init_lora_weights\": true", "\"init_lora_weights\": \"pissa_niter_4\"",
     TLR_EUNSUPPORTED, "found pissa_niter_4"},
    {"\"init_lora_weights\": true", "\"init_lora_weights\": 3",
     TLR_EUNSUPPORTED, "init_lora_weights: expected one that leaves the base"},
    {"\"rank_pattern\": {}", "\"rank_pattern\": {\"q_.*\": 4}",
     TLR_EUNSUPPORTED, "rank_pattern: expected names of modules, found q_.*"},
    {"\"alpha_pattern\": {}", "\"alpha_pattern\": {\"^q_proj\": 4}",
     TLR_EUNSUPPORTED, "alpha_pattern: expected names of modules"},
    {"\"rank_pattern\": {}", "\"rank_pattern\": {\"q_proj\": 0}", TLR_EFORMAT,
     "rank_pattern: q_proj: expected a rank of 1.."},
    {"\"rank_pattern\": {}", "\"rank_pattern\": {\"q_proj\": \"4\"}",
     TLR_EFORMAT, "q_proj: expected an integer, found a string"},
    {"\"rank_pattern\": {}", "\"rank_pattern\": {\"0.self_attn.q_proj\": 5}",
     TLR_EFORMAT, "tensor base_model.model.model.layers.0.self_attn.q_proj."
                  "lora_A.weight: expected [5,64] from the base and "
                  "adapter_config.json, found [4,64]"},
    {"\"alpha_pattern\": {}", "\"alpha_pattern\": [4]", TLR_EFORMAT,
     "alpha_pattern: expected an object, found a list"},
    {"\"r\": 4,", "\"r\": 0,", TLR_EFORMAT, "r: expected a rank of 1.."},
    {"\"r\": 4,", "\"r\": -4,", TLR_EFORMAT, "r: expected 0..65536, found -4"},
    {"\"r\": 4,", "\"r\": 4.5,", TLR_EFORMAT, "r: expected an integer"},
    {"\"r\": 4,", "", TLR_EFORMAT, "r is missing"},
    {"\"r\": 4,", "\"r\": 8,", TLR_EFORMAT, "lora_A.weight: expected [8,64]"},
    {"\"r\": 4,", "\"r\": 4, \"r\": 4,", TLR_EFORMAT, "duplicate"},
    {"\"lora_alpha\": 8,", "", TLR_EFORMAT, "lora_alpha is missing"},
    {"\"lora_alpha\": 8,", "\"lora_alpha\": \"8\",", TLR_EFORMAT,
     "lora_alpha: expected a number, found a string"},
    {"\"lora_alpha\": 8,", "\"lora_alpha\": 1e300,", TLR_EFORMAT,
     "expected a number that fits f32"},
    {"\"r\": 4,", "\"r\": 4", TLR_EFORMAT, "adapter_config.json"},
};

START_TEST(refused_config)
{
    const char *dir = copy_folder(LORA "plain", "edited");
    edit_file(dir, "adapter_config.json", bad_configs[_i].from,
              bad_configs[_i].to);
    expect_refused(FOLDERS "tiny-llama3", dir, bad_configs[_i].code,
                   bad_configs[_i].part);
}
END_TEST

/* Replaces text in the header, whose length may change with it. */
static void edit_header(const char *dir, const char *from, const char *to)
{
    char path[1024];
    size_t len;
    uint64_t header_len;
    snprintf(path, sizeof path, "%s/" WEIGHTS, dir);
    uint8_t *file = slurp(path, &len);
    memcpy(&header_len, file, 8);
    char *header = calloc(header_len + 1, 1);
    memcpy(header, file + 8, header_len);
    char *at = strstr(header, from);
    ck_assert_msg(at != NULL, "%s has no %s", path, from);
    struct bytes b = {0};
    put_u64(&b, header_len - strlen(from) + strlen(to));
    put(&b, header, (size_t)(at - header));
    put(&b, to, strlen(to));
    put(&b, at + strlen(from), strlen(at + strlen(from)));
    put(&b, file + 8 + header_len, len - 8 - header_len);
    spill(path, b.data, b.len);
    free(b.data);
    free(header);
    free(file);
}

#define UP "layers.1.mlp.up_proj."
static const struct {
    const char *from, *to;
    int code;
    const char *part;
} bad_headers[] = {
    {UP "lora_A", "layers.2.mlp.up_proj.lora_A", TLR_EFORMAT,
     UP "lora_A.weight is missing, its partner lora_B is there"},
    {UP "lora_B", UP "lora_C", TLR_EFORMAT,
     UP "lora_B.weight is missing, its partner lora_A is there"},
    {UP "lora_A.weight\":{\"dtype\":\"F32\",\"shape\":[4,64]",
     UP "lora_A.weight\":{\"dtype\":\"F32\",\"shape\":[64,4]", TLR_EFORMAT,
     UP "lora_A.weight: expected [4,64]"},
    {UP "lora_A.weight\":{\"dtype\":\"F32\",\"shape\":[4,64]",
     UP "lora_A.weight\":{\"dtype\":\"F32\",\"shape\":[256]", TLR_EFORMAT,
     "found [1,256] in 1 dimension;"},
    {UP "lora_A.weight\":{\"dtype\":\"F32\"",
     UP "lora_A.weight\":{\"dtype\":\"I32\"", TLR_EUNSUPPORTED,
     "expected type F32, F16 or BF16, found I32"},
    {"\"dtype\":\"F32\"", "\"dtype\":\"F33\"", TLR_EFORMAT, "dtype F33"},
};

START_TEST(refused_tensors)
{
    const char *dir = copy_folder(LORA "plain", "header");
    edit_header(dir, bad_headers[_i].from, bad_headers[_i].to);
    expect_refused(FOLDERS "tiny-llama3", dir, bad_headers[_i].code,
                   bad_headers[_i].part);
}
END_TEST

/* Both factors of a module renamed: what else PEFT writes, or another model's. */
static const struct {
    const char *a, *b, *part;
} unused[] = {
    {"model.layers.9.mlp.up_proj.lora_A.weight",
     "model.layers.9.mlp.up_proj.lora_B.weight",
     "layers.9.mlp.up_proj.lora_A.weight is a module that the base does not"},
    {"model.embed_tokens.lora_embedding_A", "model.embed_tokens.lora_embedding_B",
     "lora_embedding_A is an adapted embedding table"},
    {"model.norm.lora_A.weight", "model.norm.lora_B.weight",
     "norm.lora_A.weight is a module that the base does not have"},
    {"lm_head.modules_to_save.weight", "x",
     "lm_head.modules_to_save.weight is a replaced module"},
    {"model." UP "lora_magnitude_vector", "x",
     UP "lora_magnitude_vector is DoRA's magnitudes"},
    {"model." UP "lora_B.bias", "x", UP "lora_B.bias is an adapted bias"},
    {"a", "b", "base_model.model.a is no factor of PEFT's LoRA"},
};

START_TEST(refused_unused)
{
    const char *dir = copy_folder(LORA "plain", "unused");
    edit_header(dir, "model." UP "lora_A.weight", unused[_i].a);
    edit_header(dir, "model." UP "lora_B.weight", unused[_i].b);
    expect_refused(FOLDERS "tiny-llama3", dir, TLR_EUNSUPPORTED,
                   unused[_i].part);
}
END_TEST

/* An adapter of a wider, a deeper and a headless model. */
START_TEST(other_base)
{
    expect_refused("random:tiny-llama", LORA "plain", TLR_EFORMAT,
                   "the adapter is of another model");
    expect_refused(FOLDERS "tiny-llama", LORA "patterns", TLR_EUNSUPPORTED,
                   "part of an adapted head, which the base ties");
}
END_TEST

START_TEST(wrong_files)
{
    const char *base = FOLDERS "tiny-llama3";
    expect_refused(base, "/no/such/adapter", TLR_ENOTFOUND,
                   "/no/such/adapter: expected a PEFT LoRA folder");
    expect_refused(base, LORA "plain/" WEIGHTS, TLR_EUSAGE, "give the folder");
    expect_refused(base, FOLDERS "tiny-llama3", TLR_ENOTFOUND,
                   "adapter_config.json");
    char from[1024], to[1024];
    const char *dir = copy_folder(LORA "plain", "pickle");
    snprintf(from, sizeof from, "%s/" WEIGHTS, dir);
    snprintf(to, sizeof to, "%s/adapter_model.bin", dir);
    ck_assert_int_eq(rename(from, to), 0);
    expect_refused(base, dir, TLR_EUNSUPPORTED, "found a PyTorch pickle");
    ck_assert_int_eq(remove(to), 0);
    expect_refused(base, dir, TLR_ENOTFOUND, WEIGHTS);
    size_t len;
    uint8_t *file = slurp(LORA "plain/" WEIGHTS, &len);
    spill(from, file, len - 1);
    expect_refused(base, dir, TLR_EFORMAT, WEIGHTS);
    static const char empty[] = "\x02\0\0\0\0\0\0\0{}";
    spill(from, empty, sizeof empty - 1);
    expect_refused(base, dir, TLR_EFORMAT, "the adapter is empty");
    free(file);
}
END_TEST

/* ---- numbers ---- */

static void put_f32(const char *dir, uint32_t bits)
{
    char path[1024];
    size_t len;
    uint64_t header_len;
    snprintf(path, sizeof path, "%s/" WEIGHTS, dir);
    uint8_t *file = slurp(path, &len);
    memcpy(&header_len, file, 8);
    memcpy(file + 8 + header_len + 4 * 97, &bits, 4); /* row 1 of the first A */
    spill(path, file, len);
    free(file);
}

START_TEST(values_that_are_not_numbers)
{
    static const struct {
        uint32_t bits;
        const char *part;
    } rows[] = {{0x7fc00000, "row 1: expected finite numbers, found NaN"},
                {0xff800000, "row 1: expected finite numbers, found infinity"},
                {0x7f7fffff, "the merged weights overflow"}};
    for (int i = 0; i < 3; i++) {
        const char *dir = copy_folder(LORA "plain", "nan");
        put_f32(dir, rows[i].bits);
        struct tlr_source *s = open_pair(FOLDERS "tiny-llama3", dir);
        struct tlr_err err = TLR_ERR_INIT;
        struct tlr_convert_options options = {.type = TLR_F32};
        const char *bin = tmp_path("nan.bin");
        int rc = tlr_convert(s, bin, &options, NULL, &err);
        expect_error("number", rc, &err, TLR_EFORMAT, rows[i].part);
        expect_error("tensor", rc, &err, TLR_EFORMAT, "tensor base_model.");
        ck_assert_int_ne(access(bin, F_OK), 0);
        tlr_source_close(s);
    }
}
END_TEST

START_TEST(out_of_memory)
{
    long k = 0;
    for (;; k++) {
        struct tlr_err err = TLR_ERR_INIT;
        struct tlr_source *s;
        ck_assert_int_eq(tlr_source_open(&s, FOLDERS "tiny-llama3", &err), 0);
        tlr_mem_fail_after(k);
        int rc = tlr_source_add_lora(&s, LORA "plain", &err);
        tlr_mem_fail_after(-1);
        tlr_source_close(s);
        if (rc == 0) {
            break;
        }
        ck_assert_msg(rc == TLR_ENOMEM, "k = %ld: %s", k, err.text);
    }
    ck_assert_int_ge(k, 30);
}
END_TEST

#define LOOP(test, rows)                                                       \
    tcase_add_loop_test(tc, test, 0, (int)(sizeof(rows) / sizeof *(rows)))

Suite *suite_lora(void);
Suite *suite_lora(void)
{
    Suite *suite = suite_create("lora");
    TCase *tc = tcase_create("lora");
    tcase_set_timeout(tc, 60);
    LOOP(parity, pairs);
    tcase_add_test(tc, types);
    tcase_add_test(tc, provenance);
    LOOP(refused_config, bad_configs);
    LOOP(refused_tensors, bad_headers);
    LOOP(refused_unused, unused);
    tcase_add_test(tc, other_base);
    tcase_add_test(tc, wrong_files);
    tcase_add_test(tc, values_that_are_not_numbers);
    tcase_add_test(tc, out_of_memory);
    suite_add_tcase(suite, tc);
    return suite;
}

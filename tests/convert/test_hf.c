/* test_hf.c - folders that transformers wrote and GGUF files that the gguf
 * package wrote: same ids, same logits, and every refusal by name.
 *
 * Golden data: tests/golden/hf_folders, tests/golden/gguf (make.py beside).
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "convert/convert.h"
#include "tests/convert/helpers.h"
#include "tests/convert/parity.h"
#include "tests/support/tlr_check.h"

#define FOLDERS "tests/golden/hf_folders/"

/* ---- logits ---- */

/* Text to ids to logits, as transformers has them. */
static void expect_parity(const char *from, const char *folder)
{
    char expected[512];
    snprintf(expected, sizeof expected, FOLDERS "%s/expected.json", folder);
    const char *bin = tmp_path("parity.bin");
    convert_to(from, NULL, bin, TLR_F32);
    double apart = logits_apart(bin, expected);
    ck_assert_msg(apart < 1e-4, "%s: logits differ by %.3g of the largest",
                  from, apart);
}

static const char *const families[] = {"tiny-qwen2", "tiny-qwen3", "tiny-llama",
                                       "tiny-llama3"};

START_TEST(folder_parity)
{
    char path[256];
    snprintf(path, sizeof path, FOLDERS "%s", families[_i]);
    expect_parity(path, families[_i]);
}
END_TEST

START_TEST(gguf_parity)
{
    expect_parity("tests/golden/gguf/tiny-llama3.gguf", "tiny-llama3");
    expect_parity("tests/golden/gguf/tiny-qwen2.gguf", "tiny-qwen2");
}
END_TEST

/* A snapshot of the Hugging Face cache is a folder of links. */
START_TEST(folder_of_links)
{
    const char *real = copy_folder(FOLDERS "tiny-qwen2", "blobs");
    const char *links = tmp_path("snapshot");
    mkdir(links, 0777);
    const char *names[] = {"config.json", "generation_config.json",
                           "tokenizer.json", "tokenizer_config.json",
                           "chat_template.jinja",
                           "model.safetensors.index.json",
                           "model-00001-of-00002.safetensors",
                           "model-00002-of-00002.safetensors"};
    for (int i = 0; i < 8; i++) {
        char from[1024], to[1024];
        snprintf(from, sizeof from, "../blobs/%s", names[i]);
        snprintf(to, sizeof to, "%s/%s", links, names[i]);
        ck_assert_int_eq(symlink(from, to), 0);
    }
    ck_assert_ptr_nonnull(real);
    expect_parity(links, "tiny-qwen2");
}
END_TEST

/* ---- what the small files say ---- */

START_TEST(generation_and_chat)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_source *s;
    ck_assert_msg(tlr_source_open(&s, FOLDERS "tiny-qwen2/", &err) == 0, "%s",
                  err.text);
    ck_assert(s->generation.temperature == 0.7f);
    ck_assert(s->generation.top_p == 0.8f);
    ck_assert_int_eq(s->generation.top_k, 20);
    ck_assert(s->generation.repeat_penalty == 1.1f);
    ck_assert(tlr_generation_is_eos(&s->generation, 302)); /* <|im_end|> */
    ck_assert(tlr_generation_is_eos(&s->generation, 300)); /* <|endoftext|> */
    ck_assert_int_eq(s->generation.n_eos, 2);
    ck_assert_ptr_nonnull(s->chat.name);
    ck_assert_uint_eq(s->vocab.n_tokens, 303);
    ck_assert_ptr_null(strchr(s->provenance_json, '/'));
    ck_assert_ptr_nonnull(
        strstr(s->provenance_json, "model-00002-of-00002.safetensors"));
    tlr_source_close(s);

    ck_assert_msg(tlr_source_open(&s, FOLDERS "tiny-llama", &err) == 0, "%s",
                  err.text);
    ck_assert(s->generation.temperature == 0.0f); /* do_sample: false */
    tlr_source_close(s);

    ck_assert_msg(tlr_source_open(&s, "tests/golden/gguf/tiny-qwen2.gguf",
                                  &err) == 0, "%s", err.text);
    ck_assert(s->generation.temperature == 0.0f);
    ck_assert(tlr_generation_is_eos(&s->generation, 302));
    ck_assert_ptr_nonnull(s->chat.name);
    tlr_source_close(s);
}
END_TEST

/* ---- refusals ---- */

static const struct bad_edit {
    const char *folder, *file, *from, *to;
    int code;
    const char *part;
} bad_edits[] = {
#define CONFIG(folder, from, to, code, part)                                   \
    {folder, "config.json", from, to, code, part},
    CONFIG("tiny-qwen2", "Qwen2ForCausalLM", "GemmaForCausalLM",
           TLR_EUNSUPPORTED, "found GemmaForCausalLM")
    CONFIG("tiny-qwen2", "\"architectures\"", "\"arch\"", TLR_EFORMAT,
           "architectures: expected")
    CONFIG("tiny-qwen2", "\"silu\"", "\"gelu\"", TLR_EUNSUPPORTED,
           "hidden_act: expected silu, found gelu")
    CONFIG("tiny-qwen2", "\"hidden_size\": 64", "\"hidden_size\": 128",
           TLR_EFORMAT, "expected [")
    CONFIG("tiny-qwen2", "\"hidden_size\": 64", "\"hidden_size\": -64",
           TLR_EFORMAT, "hidden_size: expected 0..")
    CONFIG("tiny-qwen2", "\"hidden_size\": 64", "\"hidden_size\": 64.0",
           TLR_EFORMAT, "hidden_size: expected an integer")
    CONFIG("tiny-qwen2", "\"hidden_size\": 64", "\"hidden_size\": \"64\"",
           TLR_EFORMAT, "found a string")
    CONFIG("tiny-qwen2", "\"hidden_size\": 64,", "", TLR_EFORMAT,
           "hidden_size is missing")
    CONFIG("tiny-qwen2", "\"num_attention_heads\": 4",
           "\"num_attention_heads\": 0", TLR_ELIMIT, "n_heads: expected 1 to")
    CONFIG("tiny-qwen2", "\"num_attention_heads\": 4",
           "\"num_attention_heads\": 5", TLR_EFORMAT, "config.json")
    CONFIG("tiny-qwen2", "\"num_hidden_layers\": 2",
           "\"num_hidden_layers\": 3", TLR_EFORMAT,
           "tensor model.layers.2.input_layernorm.weight [1,64] is missing")
    CONFIG("tiny-qwen2", "\"num_hidden_layers\": 2",
           "\"num_hidden_layers\": 1", TLR_EUNSUPPORTED,
           "this architecture has no such tensor")
    CONFIG("tiny-qwen2", "\"num_hidden_layers\": 2",
           "\"num_hidden_layers\": 4000000000", TLR_ELIMIT, "n_layers: expected")
    CONFIG("tiny-qwen2", "\"vocab_size\": 320", "\"vocab_size\": 321",
           TLR_EFORMAT, "model.embed_tokens.weight: expected [321,64]")
    CONFIG("tiny-qwen2", "\"use_sliding_window\": false",
           "\"use_sliding_window\": true", TLR_EUNSUPPORTED,
           "use_sliding_window: expected false")
    CONFIG("tiny-qwen2", "\"full_attention\"", "\"sliding_attention\"",
           TLR_EUNSUPPORTED, "found sliding_attention")
    CONFIG("tiny-qwen2", "\"rope_type\": \"default\"",
           "\"rope_type\": \"yarn\"", TLR_EUNSUPPORTED,
           "rope_parameters: expected type default or llama3, found yarn")
    CONFIG("tiny-qwen2", "\"rope_theta\": 1000000.0", "\"rope_theta\": 0",
           TLR_EFORMAT, "config.json")
    CONFIG("tiny-qwen2", "\"hidden_size\": 64,",
           "\"hidden_size\": 64, \"hidden_size\": 64,", TLR_EFORMAT,
           "duplicate")
    CONFIG("tiny-qwen2", "\"hidden_size\": 64,",
           "\"hidden_size\": 64, \"quantization_config\": {\"bits\": 4},",
           TLR_EUNSUPPORTED, "quantization_config")
    CONFIG("tiny-qwen2", "\"tie_word_embeddings\": false",
           "\"tie_word_embeddings\": true", TLR_EFORMAT,
           "tensor lm_head.weight: config.json ties it")
    CONFIG("tiny-qwen3", "\"tie_word_embeddings\": true",
           "\"tie_word_embeddings\": false", TLR_EFORMAT,
           "tensor lm_head.weight [320,64] is missing")
    CONFIG("tiny-qwen3", "\"attention_bias\": false",
           "\"attention_bias\": true", TLR_EUNSUPPORTED, "attention_bias")
    CONFIG("tiny-qwen3", "\"head_dim\": 32", "\"head_dim\": 33",
           TLR_EUNSUPPORTED, "head_dim: expected a multiple of 8")
    CONFIG("tiny-llama", "\"mlp_bias\": false", "\"mlp_bias\": true",
           TLR_EUNSUPPORTED, "mlp_bias")
    CONFIG("tiny-llama", "LlamaForCausalLM", "Qwen3ForCausalLM",
           TLR_EUNSUPPORTED, "model_type: expected qwen3, found llama")
    CONFIG("tiny-llama3", "\"factor\": 8.0,", "", TLR_EFORMAT,
           "factor is missing")
    CONFIG("tiny-llama3", "\"low_freq_factor\": 1.0",
           "\"low_freq_factor\": 4.0", TLR_EFORMAT, "rope scaling llama3")
    CONFIG("tiny-llama3", "\"rope_type\": \"llama3\"",
           "\"rope_type\": \"dynamic\"", TLR_EUNSUPPORTED,
           "rope_scaling: expected type default or llama3, found dynamic")
#undef CONFIG
#define INDEX "model.safetensors.index.json"
    {"tiny-qwen2", INDEX, "model-00001-of-00002.safetensors",
     "../model-00001-of-00002.safetensors", TLR_EFORMAT, "damaged or hostile"},
    {"tiny-qwen2", INDEX, "model-00001-of-00002.safetensors", "/etc/passwd",
     TLR_EFORMAT, "damaged or hostile"},
    {"tiny-qwen2", INDEX, "model-00001-of-00002.safetensors", ".hidden",
     TLR_EFORMAT, "damaged or hostile"},
    {"tiny-qwen2", INDEX, "model-00001-of-00002.safetensors", "", TLR_EFORMAT,
     "damaged or hostile"},
    {"tiny-qwen2", INDEX, "\"model-00001-of-00002.safetensors\"", "17",
     TLR_EFORMAT, "found an integer"},
    {"tiny-qwen2", INDEX, "model-00001-of-00002.safetensors",
     "model-00003-of-00002.safetensors", TLR_ENOTFOUND,
     "(named in model.safetensors.index.json"},
    {"tiny-qwen2", INDEX, "\"weight_map\"", "\"map\"", TLR_EFORMAT,
     "weight_map: expected an object"},
    {"tiny-qwen2", INDEX, "\"lm_head.weight\"", "\"lm_tail.weight\"",
     TLR_EFORMAT, "found it in no file"},
    {"tiny-qwen2", "tokenizer.json", "\"version\"", "version", TLR_EFORMAT,
     "tokenizer.json"},
    {"tiny-qwen2", "generation_config.json", "0.7", "-0.7", TLR_EFORMAT,
     "generation_config.json"},
    {"tiny-qwen2", "generation_config.json", "0.8", "1.8", TLR_EFORMAT,
     "generation_config.json"},
    {"tiny-qwen2", "generation_config.json", "302", "320", TLR_EFORMAT,
     "end token 320: expected 0..319"},
    {"tiny-qwen2", "generation_config.json", "302", "-1", TLR_EFORMAT,
     "end token -1"},
    {"tiny-qwen2", "generation_config.json", "302", "\"x\"", TLR_EFORMAT,
     "eos_token_id: expected a token id"},
    {"tiny-qwen2", "generation_config.json", "302",
     "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", TLR_ELIMIT, "at most 16"},
};

START_TEST(refused_edit)
{
    const struct bad_edit *row = &bad_edits[_i];
    char golden[256];
    snprintf(golden, sizeof golden, FOLDERS "%s", row->folder);
    const char *dir = copy_folder(golden, "edited");
    edit_file(dir, row->file, row->from, row->to);
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_source *source;
    int rc = tlr_source_open(&source, dir, &err);
    ck_assert_ptr_null(source);
    expect_error(row->to, rc, &err, row->code, row->part);
}
END_TEST

START_TEST(missing_files)
{
    static const struct {
        const char *file;
        int code;
        const char *part;
    } rows[] = {
        {"config.json", TLR_ENOTFOUND, "config.json"},
        {"tokenizer.json", TLR_ENOTFOUND, "tokenizer.json is missing"},
        {"model.safetensors.index.json", TLR_ENOTFOUND,
         "expected model.safetensors or"},
        {"model-00002-of-00002.safetensors", TLR_ENOTFOUND, "download it too"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *dir = copy_folder(FOLDERS "tiny-qwen2", "missing");
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", dir, rows[i].file);
        ck_assert_int_eq(remove(path), 0);
        struct tlr_err err = TLR_ERR_INIT;
        struct tlr_source *source;
        int rc = tlr_source_open(&source, dir, &err);
        expect_error(rows[i].file, rc, &err, rows[i].code, rows[i].part);
    }
    /* generation_config.json and tokenizer_config.json may be absent */
    const char *dir = copy_folder(FOLDERS "tiny-llama", "missing-too");
    char path[1024];
    snprintf(path, sizeof path, "%s/generation_config.json", dir);
    ck_assert_int_eq(remove(path), 0);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    ck_assert_int_eq(remove(path), 0);
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_source *source;
    ck_assert_msg(tlr_source_open(&source, dir, &err) == 0, "%s", err.text);
    tlr_source_close(source);
}
END_TEST

START_TEST(wrong_paths)
{
    const char *empty = tmp_path("empty");
    mkdir(empty, 0777);
    const char *pickles = copy_folder(FOLDERS "tiny-llama", "pickles");
    char from[1024], to[1024];
    snprintf(from, sizeof from, "%s/model.safetensors", pickles);
    snprintf(to, sizeof to, "%s/pytorch_model.bin", pickles);
    ck_assert_int_eq(rename(from, to), 0);
    const char *model = tmp_path("model.bin");
    convert_to("random:tiny-llama", NULL, model, TLR_Q8);
    const struct {
        const char *path;
        int code;
        const char *part;
    } rows[] = {
        {model, TLR_EUSAGE, "found a model of tlr"},
        {"/no/such/model", TLR_ENOTFOUND, "/no/such/model: expected"},
        {empty, TLR_ENOTFOUND, "config.json"},
        {pickles, TLR_EUNSUPPORTED, "PyTorch pickles"},
        {to, TLR_EUNSUPPORTED, "PyTorch weights"},
        {FOLDERS "tiny-llama/model.safetensors", TLR_EUSAGE, "give the folder"},
        {FOLDERS "make.py", TLR_EFORMAT, "expected a GGUF file"},
        {"random:none", TLR_ENOTFOUND, "random:none: expected one of"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tlr_err err = TLR_ERR_INIT;
        struct tlr_source *source;
        int rc = tlr_source_open(&source, rows[i].path, &err);
        ck_assert_ptr_null(source);
        expect_error(rows[i].path, rc, &err, rows[i].code, rows[i].part);
    }
}
END_TEST

/* ---- tensors added to or changed in a good file ---- */

/* Adds a tensor behind the last one. */
static void add_tensor(const char *dir, const char *name, const char *dtype,
                       json_t *shape, const uint8_t *data, size_t len)
{
    char path[1024];
    size_t file_len;
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    uint8_t *file = slurp(path, &file_len);
    uint64_t header_len;
    memcpy(&header_len, file, 8);
    json_t *root = json_loadb((char *)file + 8, header_len, 0, NULL);
    size_t data_len = file_len - 8 - header_len;
    json_object_set_new(root, name,
                        json_pack("{s:s,s:o,s:[I,I]}", "dtype", dtype, "shape",
                                  shape, "data_offsets", (json_int_t)data_len,
                                  (json_int_t)(data_len + len)));
    char *header = json_dumps(root, JSON_COMPACT);
    struct bytes b = {0};
    put_string(&b, header);
    put(&b, file + 8 + header_len, data_len);
    put(&b, data, len);
    spill(path, b.data, b.len);
    free(b.data);
    free(header);
    json_decref(root);
    free(file);
}

/* Where the data of a tensor starts in the file. */
static size_t tensor_at(const uint8_t *file, const char *name, size_t *len)
{
    uint64_t header_len;
    memcpy(&header_len, file, 8);
    json_t *root = json_loadb((const char *)file + 8, header_len, 0, NULL);
    json_t *at = json_object_get(json_object_get(root, name), "data_offsets");
    size_t begin = (size_t)json_integer_value(json_array_get(at, 0));
    *len = (size_t)json_integer_value(json_array_get(at, 1)) - begin;
    json_decref(root);
    return 8 + header_len + begin;
}

static int open_and_close(const char *dir, struct tlr_err *err)
{
    struct tlr_source *source;
    int rc = tlr_source_open(&source, dir, err);
    tlr_source_close(source);
    return rc;
}

START_TEST(extra_tensors)
{
    size_t file_len, len;
    uint8_t *file = slurp(FOLDERS "tiny-llama/model.safetensors", &file_len);
    uint8_t *embed = file + tensor_at(file, "model.embed_tokens.weight", &len);
    struct tlr_err err = TLR_ERR_INIT;

    const char *dir = copy_folder(FOLDERS "tiny-llama", "same-head");
    add_tensor(dir, "lm_head.weight", "BF16", json_pack("[i,i]", 320, 64),
               embed, len);
    ck_assert_msg(open_and_close(dir, &err) == 0, "%s", err.text);

    dir = copy_folder(FOLDERS "tiny-llama", "other-head");
    embed[len - 1] ^= 1;
    add_tensor(dir, "lm_head.weight", "BF16", json_pack("[i,i]", 320, 64),
               embed, len);
    expect_error("head", open_and_close(dir, &err), &err, TLR_EFORMAT,
                 "config.json ties it");

    dir = copy_folder(FOLDERS "tiny-llama", "rotary");
    tlr_err_clear(&err);
    add_tensor(dir, "model.layers.0.self_attn.rotary_emb.inv_freq", "F64",
               json_pack("[i]", 1), embed, 8);
    ck_assert_msg(open_and_close(dir, &err) == 0, "%s", err.text);

    dir = copy_folder(FOLDERS "tiny-llama", "unknown");
    add_tensor(dir, "model.layers.0.adapter.weight", "F32", json_pack("[i]", 1),
               embed, 4);
    expect_error("unknown", open_and_close(dir, &err), &err, TLR_EUNSUPPORTED,
                 "tensor model.layers.0.adapter.weight");
    free(file);
}
END_TEST

START_TEST(values_that_are_not_numbers)
{
    const char *dir = copy_folder(FOLDERS "tiny-llama", "nan");
    char path[1024];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    for (int is_nan = 0; is_nan < 2; is_nan++) {
        size_t file_len, len;
        uint8_t *file = slurp(path, &file_len);
        size_t at =
            tensor_at(file, "model.layers.1.mlp.up_proj.weight", &len);
        size_t element = at + 2 * (41 * 64 + 3); /* row 41 */
        file[element] = is_nan ? 0xc0 : 0x80;
        file[element + 1] = 0x7f;
        spill(path, file, file_len);
        free(file);
        struct tlr_err err = TLR_ERR_INIT;
        struct tlr_source *source;
        ck_assert_msg(tlr_source_open(&source, dir, &err) == 0, "%s", err.text);
        const char *bin = tmp_path("nan.bin");
        struct tlr_convert_options options = {.type = TLR_Q8};
        int rc = tlr_convert(source, bin, &options, NULL, &err);
        expect_error("nan", rc, &err, TLR_EFORMAT,
                     "tensor model.layers.1.mlp.up_proj.weight: row 41");
        expect_error("nan", rc, &err, TLR_EFORMAT,
                     is_nan ? "found NaN" : "found infinity");
        ck_assert_int_ne(access(bin, F_OK), 0);
        tlr_source_close(source);
    }
}
END_TEST

/* The tokenizer of a larger model does not fit this one. */
START_TEST(vocabulary_that_does_not_fit)
{
    const char *dir = copy_folder(FOLDERS "tiny-llama", "large-vocab");
    edit_file(dir, "tokenizer.json", "\"id\": 302", "\"id\": 330");
    struct tlr_err err = TLR_ERR_INIT;
    expect_error("vocabulary", open_and_close(dir, &err), &err, TLR_EFORMAT,
                 "does not fit the embedding table, which has 320 rows");
}
END_TEST

Suite *suite_hf(void);
Suite *suite_hf(void)
{
    Suite *suite = suite_create("hf");
    TCase *tc = tcase_create("hf");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, folder_parity, 0, 4);
    tcase_add_test(tc, gguf_parity);
    tcase_add_test(tc, folder_of_links);
    tcase_add_test(tc, generation_and_chat);
    tcase_add_loop_test(tc, refused_edit, 0,
                        (int)(sizeof bad_edits / sizeof *bad_edits));
    tcase_add_test(tc, missing_files);
    tcase_add_test(tc, wrong_paths);
    tcase_add_test(tc, extra_tensors);
    tcase_add_test(tc, values_that_are_not_numbers);
    tcase_add_test(tc, vocabulary_that_does_not_fit);
    suite_add_tcase(suite, tc);
    return suite;
}

/* fuzz_net.h - any bytes as a server's reply in one wire format, through the parser
 * and the seam: what comes out are ids of the vocabulary, as many as were asked for
 * at most, and by text they spell the beginning of what the reply says.
 */
#ifndef TLR_TESTS_FUZZ_NET_H
#define TLR_TESTS_FUZZ_NET_H

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "net/api.h"
#include "net/seam.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FUZZ_END = 256, FUZZ_IDS = 260 };

static void must(int holds)
{
    if (!holds)
        abort();
}

/* Every byte, an end of text, and three merges. */
static struct tlr_tokenizer *fuzz_tokenizer(void)
{
    static const char *const more[] = {"<end>", "th", "the", "\xC3\xA9"};
    static const struct tlr_vocab_merge merges[] = {
        {'t', 'h', 257}, {257, 'e', 258}, {0xC3, 0xA9, 259}};
    static uint8_t bytes[256];
    struct tlr_vocab_token tokens[FUZZ_IDS];
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_tokenizer *t = NULL;
    uint8_t *packed = NULL;
    size_t len = 0;
    for (int i = 0; i < 256; i++) {
        bytes[i] = (uint8_t)i;
        tokens[i] = (struct tlr_vocab_token){&bytes[i], 1, 0};
    }
    for (int i = 0; i < 4; i++)
        tokens[256 + i] = (struct tlr_vocab_token){
            (const uint8_t *)more[i], (uint32_t)strlen(more[i]),
            i ? 0 : TLR_TOKEN_ADDED | TLR_TOKEN_SPECIAL};
    struct tlr_vocab v = {.pre = TLR_PRE_GPT2, .n_tokens = FUZZ_IDS,
                          .n_merges = 3, .bos_id = -1, .tokens = tokens,
                          .merges = merges};
    must(tlr_vocab_pack(&v, &packed, &len, &err) == 0);
    must(tlr_tokenizer_new(&t, (struct tlr_bytes){packed, len}, "fuzz", &err) ==
         0);
    return t; /* with its bytes, until the process ends */
}

static void check_ids(const struct tlr_seam *s, const struct tlr_net_answer *a,
                      const int32_t *ids, int n, int n_tok)
{
    size_t at = 0;
    must(n >= 1 && n <= n_tok);
    for (int i = 0; i < n; i++) {
        must(ids[i] >= 0 && (uint32_t)ids[i] < s->n_ids);
        if (a->n_ids >= 0)
            continue;
        if (ids[i] == FUZZ_END) {
            must(a->finish == TLR_NET_AT_END && i == n - 1);
            continue;
        }
        struct tlr_bytes b = tlr_token_bytes(s->tok, ids[i]);
        must(at + b.len <= a->text.n &&
             memcmp(a->text.ptr + at, b.ptr, b.len) == 0);
        at += b.len;
    }
}

static int fuzz_reply(enum tlr_net_api_kind kind, const uint8_t *data,
                      size_t size)
{
    static struct tlr_tokenizer *tok;
    static const struct tlr_generation gen = {.n_eos = 1, .eos = {FUZZ_END}};
    struct tlr_net_answer a = {0};
    struct tlr_err err = TLR_ERR_INIT;
    if (!tok)
        tok = fuzz_tokenizer();
    struct tlr_seam s = {.tok = tok, .gen = &gen, .n_ids = FUZZ_IDS};
    tlr_net_answer_begin(&a);
    int rc = tlr_net_parse(tlr_net_api(kind), (struct tlr_bytes){data, size},
                           &a, &err);
    must(rc == 0 || (err.code == rc && err.text[0]));
    static const int32_t tail[] = {'a', ' ', 't'};
    for (int n_tok = 1; n_tok <= 5 && !rc; n_tok += 4) {
        struct tlr_seam_want w = {.tail = tail, .n_tail = 3, .n_tok = n_tok,
                                  .n_slack = 1};
        struct tlr_err why = TLR_ERR_INIT;
        int32_t ids[8];
        int n;
        int end = tlr_seam_answer(&s, &a, &w, ids, &n, &why);
        must(end == TLR_EPENDING || end == 0 || why.text[0]);
        if (end == 0)
            check_ids(&s, &a, ids, n, n_tok);
    }
    tlr_net_answer_clear(&a);
    return 0;
}

#endif

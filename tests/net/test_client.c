/* test_client.c - the joint loop with a server behind it: every wire format, by ids
 * and by text, must make the text that the same large model makes without a line;
 * and what is counted, recorded and sent along. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "tests/net/loop.h"
#include "tests/support/tlr_check.h"

/* The server as `change` makes it, asked in format `api`; what it is taken for
 * must show in tlr_net_about. */
static void check_format(enum tlr_net_api_kind kind,
                         void (*change)(struct server_options *),
                         const char *api, bool by_text, const char *about)
{
    struct loop l = loop_open(kind);
    if (change)
        change(&l.o);
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_expert e;
    o.api = api;
    struct tlr_net *n = loop_connect(&l, &o, &e);
    ck_assert_msg(strstr(tlr_net_about(n), about) != NULL, "%s, expected %s",
                  tlr_net_about(n), about);
    ck_assert_msg(strstr(tlr_net_about(n), by_text ? "by text" : "by tokens") !=
                      NULL, "%s", tlr_net_about(n));
    struct hash_expert h = {.o = &l.o, .by_text = by_text};
    struct tlr_expert local = hash_expert(&h);
    struct loop_result want = loop_run(&l, &local, 0);
    struct loop_result serial = loop_run(&l, &e, 0);
    struct loop_result ahead = loop_run(&l, &e, 3);
    ck_assert_uint_gt(want.totals.n_llm, by_text ? 1 : LOOP_TOK / 4);
    loop_same(&serial, &want);
    loop_same(&ahead, &want);
    tlr_expert_close(&e);
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}

/* ---- several tokens a question ---- */

static const struct burst_row {
    enum tlr_net_api_kind kind;
    int burst;
    bool tells_p, by_text, leaves_end_out;
} burst_rows[] = {
    {TLR_NET_SGLANG, 3, false, false, false},
    {TLR_NET_VLLM, 5, false, false, true},
    {TLR_NET_LLAMACPP, 16, false, false, false},
    {TLR_NET_OPENAI, 3, false, true, false},
    {TLR_NET_SGLANG, TLR_EXPERT_AUTO, true, false, true},
    {TLR_NET_VLLM, TLR_EXPERT_AUTO, true, false, false},
    {TLR_NET_LLAMACPP, TLR_EXPERT_AUTO, true, false, false},
    {TLR_NET_LLAMACPP, TLR_EXPERT_AUTO, false, false, false},
    {TLR_NET_OPENAI, TLR_EXPERT_AUTO, true, true, false}};

static int n_given(const struct loop_result *r)
{
    return (int)(r->totals.n_llm + r->totals.n_failed - r->totals.n_asked);
}

/* By text a burst's bytes may be cut into other tokens than those that the server made,
 * so there only both loops are compared. */
START_TEST(bursts)
{
    const struct burst_row *row = &burst_rows[_i];
    struct loop l = loop_open(row->kind);
    l.burst = row->burst;
    l.o.tells_p = row->tells_p;
    l.o.leaves_end_out = row->leaves_end_out;
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_expert e;
    struct tlr_net *n = loop_connect(&l, &o, &e);
    struct hash_expert h = {.o = &l.o, .by_text = row->by_text};
    struct tlr_expert local = hash_expert(&h);
    struct loop_result want = loop_run(&l, &local, 0);
    int before = server_counts(s).n_questions;
    struct loop_result serial = loop_run(&l, &e, 0);
    ck_assert_int_eq(server_counts(s).n_questions - before,
                     (int)serial.totals.n_asked);
    struct loop_result ahead = loop_run(&l, &e, 3);
    bool is_one = row->burst == TLR_EXPERT_AUTO && (!row->tells_p || row->by_text);
    loop_same(&ahead, &serial);
    if (!row->by_text || is_one)
        loop_same(&serial, &want);
    ck_assert_int_eq(n_given(&serial) > 0, !is_one);
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

/* What is asked for is paid for, also tokens that auto does not take. */
START_TEST(bursts_are_budgeted)
{
    struct loop l = loop_open(TLR_NET_SGLANG);
    l.burst = _i ? TLR_EXPERT_AUTO : 4;
    l.o.tells_p = true;
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_expert e;
    o.max_tok = LOOP_PROMPT + 3; /* fits a prompt and three tokens */
    struct tlr_net *n = loop_connect(&l, &o, &e);
    struct tlr_expert_reply reply;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_expert_ask(&e, l.prompt, LOOP_PROMPT, l.burst,
                                    l.o.seam.n_ids, &reply, &err), TLR_ELIMIT);
    ck_assert_int_eq(server_counts(s).n_questions, 0);
    err = (struct tlr_err)TLR_ERR_INIT;
    ck_assert_msg(!tlr_expert_ask(&e, l.prompt, LOOP_PROMPT, 3, l.o.seam.n_ids,
                                  &reply, &err), "%s", err.text);
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

/* ---- every format ---- */

static void anonymous(struct server_options *o)
{
    o->is_anonymous = true;
}

static void silent(struct server_options *o)
{
    o->is_anonymous = o->cannot_tokenize = true;
}

static void otherwise(struct server_options *o)
{
    o->cuts_otherwise = true;
}

static void idless(struct server_options *o)
{
    o->hides_ids = o->cannot_tokenize = true;
}

static void endless(struct server_options *o)
{
    o->leaves_end_out = true;
}

static void strict(struct server_options *o)
{
    o->is_strict = true;
}

static void closing(struct server_options *o)
{
    o->closes_idle = true;
}

static const char *const names[] = {"sglang", "vllm", "llamacpp"};

START_TEST(formats_by_ids)
{
    enum tlr_net_api_kind kind = (enum tlr_net_api_kind)_i;
    check_format(kind, NULL, names[_i], false, names[_i]);
    check_format(kind, NULL, "auto", false, names[_i]);
    check_format(kind, anonymous, "auto", false, names[_i]);
    check_format(kind, endless, names[_i], false, names[_i]);
    check_format(kind, closing, names[_i], false, names[_i]);
}
END_TEST

START_TEST(formats_by_text)
{
    enum tlr_net_api_kind kind = (enum tlr_net_api_kind)_i;
    check_format(kind, otherwise, "auto", true, names[_i]);
    check_format(kind, idless, names[_i], true, names[_i]);
    check_format(kind, silent, names[_i], false, names[_i]);
}
END_TEST

START_TEST(format_openai)
{
    check_format(TLR_NET_OPENAI, NULL, "auto", true, "openai");
    check_format(TLR_NET_OPENAI, NULL, "openai", true, "openai");
    check_format(TLR_NET_OPENAI, strict, "openai", true, "openai");
    check_format(TLR_NET_OPENAI, anonymous, "auto", true, "openai");
}
END_TEST

/* A chat that is continued: the prompt is the template's. */
START_TEST(format_chat)
{
    static const char text[] = "<|im_start|>user\nthe river<|im_end|>\n"
                               "<|im_start|>assistant\nthe";
    struct loop l = loop_open(TLR_NET_OPENAI);
    l.o.chat_only = true;
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_expert e;
    struct tlr_net *n = loop_connect(&l, &o, &e);
    ck_assert(strstr(tlr_net_about(n), "openai chat") != NULL);
    struct tlr_ids ids = {0};
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_expert_reply reply;
    ck_assert_int_eq(tlr_encode(l.o.seam.tok, text, sizeof text - 1,
                                TLR_ENCODE_SPECIAL, &ids, &err), 0);
    struct hash_expert h = {.o = &l.o, .by_text = true};
    struct tlr_expert local = hash_expert(&h);
    struct tlr_expert_reply want;
    ck_assert_int_eq(tlr_expert_ask(&local, ids.ids, ids.n, 1, l.o.seam.n_ids,
                                    &want, &err), 0);
    ck_assert_msg(!tlr_expert_ask(&e, ids.ids, ids.n, 1, l.o.seam.n_ids, &reply,
                                  &err), "%s", err.text);
    ck_assert_int_eq(reply.ids[0], want.ids[0]);
    /* What is no chat is not sent as one. */
    ck_assert_int_eq(tlr_expert_ask(&e, ids.ids + 3, 4, 1, l.o.seam.n_ids,
                                    &reply, &err), TLR_EUNSUPPORTED);
    tlr_ids_clear(&ids);
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

/* ---- what is counted and recorded ---- */

START_TEST(one_connection)
{
    struct loop l = loop_open(TLR_NET_SGLANG);
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_expert e;
    struct tlr_net *n = loop_connect(&l, &o, &e);
    struct loop_result r = loop_run(&l, &e, 0);
    struct server_counts c = server_counts(s);
    struct tlr_expert_account a;
    tlr_expert_account_of(&e, &a);
    ck_assert_int_eq(c.n_connections, 1);
    ck_assert_uint_eq(a.n_connections, 1);
    ck_assert_uint_eq(a.n_asks, r.totals.n_asked);
    ck_assert_uint_eq(a.n_requests, (uint64_t)c.n_requests);
    ck_assert_uint_eq(a.n_retries + a.n_failed + a.n_cancelled, 0);
    ck_assert_uint_eq(a.reply_tok, r.totals.n_llm);
    ck_assert_uint_eq(a.cached_tok, 3 * r.totals.n_asked);
    ck_assert_uint_gt(a.sent_bytes, c.body_bytes);
    ck_assert_uint_lt(a.sent_bytes, c.body_bytes + 400 * a.n_requests);
    ck_assert_uint_gt(a.sent_tok, r.totals.n_asked * LOOP_PROMPT);
    ck_assert_uint_gt(r.totals.wire_ns, 0);
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

/* Lines of the audit file as objects; their number. */
static size_t read_audit(const char *path, json_t **lines)
{
    char *text;
    size_t n, n_lines = 0;
    ck_assert_int_eq(tlr_read_file(&text, &n, path, 1 << 24, NULL), 0);
    *lines = json_array();
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *j = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
        ck_assert_msg(j != NULL, "%s", line);
        json_array_append_new(*lines, j);
        n_lines++;
    }
    tlr_free(text);
    return n_lines;
}

static void check_audit(bool no_text)
{
    char path[512];
    struct loop l = loop_open(TLR_NET_VLLM);
    l.o.key = "sesame-street";
    snprintf(path, sizeof path, "%s/audit-%d", tlr_test_tmpdir(), no_text);
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_expert e;
    o.key = l.o.key;
    o.audit = path;
    o.audit_no_text = no_text;
    struct tlr_net *n = loop_connect(&l, &o, &e);
    struct loop_result r = loop_run(&l, &e, 0);
    struct server_counts c = server_counts(s);
    json_t *lines;
    size_t n_lines = read_audit(path, &lines), tokens = 0, bytes = 0;
    struct stat st;
    ck_assert_uint_gt(r.totals.n_llm, 0);
    ck_assert_uint_eq(n_lines, (size_t)c.n_requests);
    ck_assert_int_eq(c.n_with_key, c.n_requests);
    for (size_t i = 0; i < n_lines; i++) {
        const json_t *line = json_array_get(lines, i);
        tokens += (size_t)tlr_net_int(line, "tokens", 0);
        bytes += (size_t)tlr_net_int(line, "bytes", 0);
        ck_assert_int_eq(json_object_get(line, "text") == NULL, no_text);
        ck_assert_str_eq(tlr_net_string(line, "host", NULL),
                         server_url(s) + strlen("http://"));
    }
    struct tlr_expert_account a;
    tlr_expert_account_of(&e, &a);
    ck_assert_uint_eq(tokens, a.sent_tok);
    ck_assert_uint_eq(bytes, c.body_bytes);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_mode & 0777, 0600);
    char *all = json_dumps(lines, 0);
    ck_assert_ptr_eq(strstr(all, l.o.key), NULL);
    free(all);
    json_decref(lines);
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}

START_TEST(audit)
{
    check_audit(false);
    check_audit(true);
}
END_TEST

START_TEST(audit_that_cannot_be_written)
{
    struct loop l = loop_open(TLR_NET_SGLANG);
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_net *n = NULL;
    struct tlr_err err = TLR_ERR_INIT;
    o.audit = "/dev/full";
    struct stat st;
    if (stat(o.audit, &st) != 0)
        TLR_LACKS("this system has no /dev/full");
    ck_assert_int_eq(tlr_net_open(&n, &o, l.m, &err), 0);
    ck_assert_int_eq(tlr_net_connect(n, &err), TLR_ELIMIT);
    ck_assert(strstr(err.text, "nothing is sent") != NULL);
    ck_assert_int_eq(server_counts(s).n_requests, 0);
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

/* ---- keys and refusals ---- */

START_TEST(keys)
{
    struct loop l = loop_open(TLR_NET_SGLANG);
    l.o.key = "sesame-street";
    struct server *s = server_start(&l.o);
    static const char *const tried[] = {NULL, "open-sesame", "sesame-street"};
    for (int i = 0; i < 3; i++) {
        struct tlr_net_options o = loop_options(s);
        struct tlr_err err = TLR_ERR_INIT;
        struct tlr_net *n = NULL;
        o.key = tried[i];
        ck_assert_int_eq(tlr_net_open(&n, &o, l.m, &err), 0);
        ck_assert_int_eq(tlr_net_connect(n, &err), i == 2 ? 0 : TLR_EIO);
        if (i < 2)
            ck_assert_msg(strstr(err.text, "401") != NULL, "%s", err.text);
        ck_assert_ptr_eq(strstr(err.text, "sesame"), NULL);
        tlr_net_close(n);
    }
    server_stop(s);
    loop_close(&l);
}
END_TEST

START_TEST(offline_opens_nothing)
{
    struct loop l = loop_open(TLR_NET_SGLANG);
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_net *n = NULL;
    struct tlr_err err = TLR_ERR_INIT;
    o.offline = true;
    ck_assert_int_eq(tlr_net_open(&n, &o, l.m, &err), TLR_EUSAGE);
    ck_assert_ptr_eq(n, NULL);
    ck_assert_int_eq(server_counts(s).n_connections, 0);
    server_stop(s);
    loop_close(&l);
}
END_TEST

/* A model that was asked for by name; another one answers. */
START_TEST(another_model)
{
    struct loop l = loop_open(TLR_NET_VLLM);
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_expert e;
    struct tlr_expert_reply reply;
    struct tlr_err err = TLR_ERR_INIT;
    o.model = "qwen";
    struct tlr_net *n = loop_connect(&l, &o, &e);
    ck_assert_int_eq(tlr_expert_ask(&e, l.prompt, LOOP_PROMPT, 1,
                                    l.o.seam.n_ids, &reply, &err),
                     TLR_EMISMATCH);
    ck_assert(strstr(err.text, "hash") != NULL);
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

/* Words that a terminal would obey become the tokens that spell them, and go on
 * as text: what reaches a terminal is cli/output.c's to tame. */
START_TEST(words_of_a_server)
{
    struct loop l = loop_open(TLR_NET_OPENAI);
    l.o.content = "\x1b]0;x\x07";
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_expert e;
    struct tlr_expert_reply reply;
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_net *n = loop_connect(&l, &o, &e);
    ck_assert_msg(!tlr_expert_ask(&e, l.prompt, LOOP_PROMPT, 6, l.o.seam.n_ids,
                                  &reply, &err), "%s", err.text);
    for (int i = 0, at = 0; i < reply.n_tok; i++) {
        struct tlr_bytes b = tlr_token_bytes(l.o.seam.tok, reply.ids[i]);
        ck_assert_mem_eq(b.ptr, l.o.content + at, b.len);
        at += (int)b.len;
    }
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

Suite *suite_client(void);
Suite *suite_client(void)
{
    Suite *s = suite_create("client");
    TCase *t = tcase_create("client");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, bursts, 0, sizeof burst_rows / sizeof burst_rows[0]);
    tcase_add_loop_test(t, bursts_are_budgeted, 0, 2);
    tcase_add_loop_test(t, formats_by_ids, 0, 3);
    tcase_add_loop_test(t, formats_by_text, 0, 3);
    tcase_add_test(t, format_openai);
    tcase_add_test(t, format_chat);
    tcase_add_test(t, one_connection);
    tcase_add_test(t, audit);
    tcase_add_test(t, audit_that_cannot_be_written);
    tcase_add_test(t, keys);
    tcase_add_test(t, offline_opens_nothing);
    tcase_add_test(t, another_model);
    tcase_add_test(t, words_of_a_server);
    suite_add_tcase(s, t);
    return s;
}

/* client.c - see net.h: one server's state, from options to close, and what every
 * reply is held to before anybody looks inside. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "engine/tlr.h"
#include "net/net_internal.h"

/* ---- opening ---- */

static bool is_key(const char *key)
{
    size_t n = 0;
    for (; key[n]; n++)
        if ((unsigned char)key[n] <= ' ' || (unsigned char)key[n] >= 0x7F)
            return false;
    return n > 0 && n <= 1024;
}

static int check_options(const struct tlr_net_options *o,
                         const struct tlr_model *like, struct tlr_err *err)
{
    if (o->offline)
        return tlr_err_set(err, TLR_EUSAGE,
                           "--offline: nothing may leave this machine, and "
                           "--llm names a server; leave one of them out");
    if (o->key && !is_key(o->key))
        return tlr_err_set(err, TLR_EUSAGE,
                           "the key: expected up to 1024 printable characters "
                           "without blanks");
    if (!tlr_model_tokenizer(like))
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: has no tokenizer, so its tokens mean nothing "
                           "to a server", tlr_file_label(tlr_model_file(like)));
    if (strcmp(o->api, "auto") != 0 && tlr_net_api_find(o->api) == TLR_NET_AUTO)
        return tlr_err_set(err, TLR_EUSAGE, "--llm-api: no format is called "
                           "'%s'", o->api);
    return 0;
}

static int check_file(const char *path, const char *option,
                      struct tlr_err *err)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return tlr_err_set(err, TLR_EIO, "%s: %s: cannot be opened", option,
                           path);
    fclose(f);
    return 0;
}

static void init_locks(struct tlr_net *n)
{
    pthread_mutex_init(&n->lock, NULL);
    pthread_mutex_init(&n->probing, NULL);
    for (int i = 0; i < TLR_NET_SLOTS; i++) {
        n->slots[i].net = n;
        n->slots[i].want.tail = n->slots[i].tail;
    }
}

static void set_budget(struct tlr_net *n)
{
    n->budget = (struct tlr_budget){
        .max_calls = n->o.max_calls, .max_tok = n->o.max_tok,
        .max_wait_ns = (uint64_t)(n->o.max_wait_s * 1e9),
        .max_cost = n->o.max_cost, .price_in = n->o.price_in,
        .price_out = n->o.price_out};
}

static int open_all(struct tlr_net *n, const struct tlr_model *like,
                    struct tlr_err *err)
{
    int rc = tlr_url_check(&n->url, n->o.url, n->o.plain_http, err);
    if (!rc && n->o.ca_file)
        rc = check_file(n->o.ca_file, "--cacert", err);
    if (!rc && n->o.audit)
        rc = tlr_audit_open(&n->audit, n->o.audit, n->url.host,
                            !n->o.audit_no_text, err);
    if (!rc && n->o.key && !(n->key = tlr_strdup(n->o.key)))
        rc = tlr_err_nomem(err, "key", strlen(n->o.key));
    if (rc)
        return rc;
    n->seam = (struct tlr_seam){
        .tok = tlr_model_tokenizer(like), .gen = tlr_model_generation(like),
        .chat = tlr_model_chat(like), .n_ids = tlr_model_n_ids(like)};
    n->kind = tlr_net_api_find(n->o.api);
    snprintf(n->model, sizeof n->model, "%s", n->o.model ? n->o.model : "");
    n->is_pinned = n->o.model != NULL;
    snprintf(n->about, sizeof n->about, "%s", n->url.base);
    set_budget(n);
    struct tlr_http_options h = {
        .base = n->url.base, .label = n->url.base, .key = n->key,
        .ca_file = n->o.ca_file, .insecure = n->o.insecure,
        .direct = n->url.is_loopback,
        .connect_ms = (uint64_t)(n->o.connect_s * 1e3)};
    rc = tlr_http_open(&n->http, &h, err);
    return rc ? rc : tlr_http_call_init(n->http, &n->probe, err);
}

int tlr_net_open(struct tlr_net **out, const struct tlr_net_options *o,
                 const struct tlr_model *like, struct tlr_err *err)
{
    *out = NULL;
    int rc = check_options(o, like, err);
    if (rc)
        return rc;
    struct tlr_net *n = tlr_calloc(1, sizeof *n);
    if (!n)
        return tlr_err_nomem(err, "network", sizeof *n);
    init_locks(n);
    n->o = *o;
    rc = open_all(n, like, err);
    /* The caller's strings are not looked at again. */
    n->o.url = n->o.api = n->o.model = n->o.key = NULL;
    n->o.ca_file = n->o.audit = NULL;
    if (rc) {
        tlr_net_close(n);
        return rc;
    }
    *out = n;
    return 0;
}

static void wipe(char *secret)
{
    volatile char *p = secret;
    while (p && *p)
        *p++ = '\0';
}

void tlr_net_close(struct tlr_net *n)
{
    if (!n)
        return;
    for (int i = 0; i < TLR_NET_SLOTS; i++) {
        struct tlr_net_slot *s = &n->slots[i];
        if (s->is_made)
            tlr_http_call_clear(n->http, &s->call);
        tlr_buf_clear(&s->text);
        tlr_buf_clear(&s->messages);
        tlr_net_answer_clear(&s->answer);
    }
    if (n->probe.state)
        tlr_http_call_clear(n->http, &n->probe);
    tlr_http_close(n->http);
    tlr_audit_close(n->audit);
    wipe(n->key);
    tlr_free(n->key);
    pthread_mutex_destroy(&n->lock);
    pthread_mutex_destroy(&n->probing);
    tlr_free(n);
}

int tlr_net_connect(struct tlr_net *n, struct tlr_err *err)
{
    pthread_mutex_lock(&n->probing);
    int rc = n->is_known ? 0 : tlr_net_probe(n, err);
    if (!rc && !n->is_known) {
        n->is_known = true;
        snprintf(n->about, sizeof n->about, "%s, %s%s%s, by %s", n->url.base,
                 tlr_net_api(n->kind)->name, n->model[0] ? ", model " : "",
                 n->model, n->by_text ? "text" : "tokens");
    }
    pthread_mutex_unlock(&n->probing);
    return rc;
}

/* ---- what others ask ---- */

const char *tlr_net_about(const struct tlr_net *n)
{
    return n->about;
}

uint64_t tlr_net_fingerprint(const struct tlr_net *n)
{
    return tlr_hash_name(tlr_hash_name(0, n->url.base), n->model);
}

void tlr_net_account(const struct tlr_net *n, struct tlr_expert_account *out)
{
    struct tlr_net *own = (struct tlr_net *)(uintptr_t)n; /* for its lock */
    pthread_mutex_lock(&own->lock);
    *out = n->account;
    pthread_mutex_unlock(&own->lock);
}

double tlr_net_cost(const struct tlr_net *n)
{
    return tlr_budget_cost(&n->budget);
}

/* ---- replies, seen from outside ---- */

bool tlr_net_is_stopped(const struct tlr_net *n)
{
    return n->o.is_stopped && n->o.is_stopped(n->o.ctx);
}

int tlr_net_await(struct tlr_net *n, struct tlr_http_call *c,
                  struct tlr_err *err)
{
    while (!tlr_http_wait(n->http, c, 100))
        if (tlr_net_is_stopped(n)) {
            tlr_http_abort(n->http, c);
            while (!tlr_http_wait(n->http, c, 1000))
                continue;
            return tlr_err_set(err, TLR_ECANCELLED, "%s: given up",
                               n->url.base);
        }
    return 0;
}

void tlr_net_count(struct tlr_net *n, const struct tlr_http_call *c)
{
    uint64_t trip = c->times.round_trip_ns;
    n->account.sent_bytes += c->sent_bytes;
    n->account.received_bytes += c->received_bytes;
    n->account.n_connections += c->n_connects;
    if (trip > 0 && (n->round_trip_ns == 0 || trip < n->round_trip_ns))
        n->round_trip_ns = trip;
}

/* What a server says about a refusal: {"error": {"message": ...}}, {"error": ...},
 * {"message": ...} or {"detail": ...}.  Never the key, whatever it repeats. */
static void complaint(const struct tlr_net *n, const struct tlr_http_call *c,
                      char *out, size_t cap)
{
    struct tlr_bytes body = {(const uint8_t *)c->reply.ptr, c->reply.n};
    json_t *root = c->reply.n > 0 ? tlr_net_json(body, NULL) : NULL;
    const json_t *e = json_object_get(root, "error");
    const char *text = json_is_string(e) ? json_string_value(e)
                                         : tlr_net_string(e, "message", NULL);
    text = text ? text : tlr_net_string(root, "message", NULL);
    text = text ? text : tlr_net_string(root, "detail", NULL);
    snprintf(out, cap, "%s%.160s", text ? ": " : "", text ? text : "");
    if (n->key && strstr(out, n->key))
        out[0] = '\0';
    json_decref(root);
}

static const char *advice(long status, bool has_key)
{
    if (status == 401 || status == 403)
        return has_key ? "; it does not take the key"
                       : "; it wants a key (TLR_API_KEY or --llm-key-file)";
    if (status >= 300 && status < 400)
        return "; redirects are not followed, give the address it leads to";
    return "";
}

int tlr_net_check_reply(struct tlr_net *n, struct tlr_http_call *c)
{
    char text[200];
    if (c->code)
        return c->code;
    if (c->status != 200) {
        complaint(n, c, text, sizeof text);
        c->code = tlr_err_set(&c->err, TLR_EIO, "%s%s: answered %ld%s%s",
                              n->url.base, c->path, c->status, text,
                              advice(c->status, n->key));
    } else if (c->type[0] && !strstr(c->type, "json")) {
        c->code = tlr_err_set(&c->err, TLR_EFORMAT,
                              "%s%s: reply: expected application/json, found "
                              "%s", n->url.base, c->path, c->type);
    }
    return c->code;
}

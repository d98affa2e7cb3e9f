/* llm.c - see llm.h. */
#include "cli/llm.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/output.h"

static const char model_prefix[] = "model:";
enum { PREFIX_BYTES = sizeof model_prefix - 1, KEY_BYTES = 1024 };

static bool is_url(const char *spec)
{
    return strstr(spec, "://") != NULL;
}

int cli_llm_check(const struct cli_llm_args *a, struct tlr_err *err)
{
    const char *spec = a->llm;
    if (!is_url(spec) && (strncmp(spec, model_prefix, PREFIX_BYTES) != 0 ||
                          !spec[PREFIX_BYTES]))
        return tlr_err_set(err, TLR_EUSAGE,
                           "--llm: expected a URL or model:FILE, found '%s'",
                           spec);
    if (is_url(spec) && a->offline)
        return tlr_err_set(err, TLR_EUSAGE,
                           "--offline: nothing may leave this machine, and "
                           "--llm names a server; leave one of them out");
    if (!isnan(a->max_cost) && !a->price)
        return tlr_err_set(err, TLR_EUSAGE,
                           "--llm-max-cost needs --llm-price");
    return 0;
}

/* ---- the key ---- */

static int read_key(const char *path, char out[KEY_BYTES + 2],
                    struct tlr_err *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY), rc = 0;
    ssize_t n = 0;
    if (fd < 0 || fstat(fd, &st) != 0)
        rc = tlr_err_set(err, TLR_EIO, "--llm-key-file: %s: cannot be opened",
                         path);
    else if (!S_ISREG(st.st_mode))
        rc = tlr_err_set(err, TLR_EUSAGE,
                         "--llm-key-file: %s: expected a regular file", path);
    else if (st.st_mode & 077)
        rc = tlr_err_set(err, TLR_EUSAGE,
                         "--llm-key-file: %s: others may read or write it "
                         "(mode %03o); run chmod 600 on it", path,
                         (unsigned)(st.st_mode & 0777));
    else if ((n = read(fd, out, KEY_BYTES + 1)) < 0 || n > KEY_BYTES)
        rc = tlr_err_set(err, TLR_EUSAGE,
                         "--llm-key-file: %s: expected a key of up to %d bytes",
                         path, KEY_BYTES);
    if (fd >= 0)
        close(fd);
    while (!rc && n > 0 && (out[n - 1] == '\n' || out[n - 1] == '\r'))
        n--;
    out[rc ? 0 : n] = '\0';
    return rc;
}

/* ---- opening ---- */

static int read_price(const char *text, struct tlr_net_options *o,
                      struct tlr_err *err)
{
    char *end = NULL;
    if (!text)
        return 0;
    o->price_in = strtod(text, &end);
    if (end != text && *end == '/') {
        const char *second = end + 1;
        o->price_out = strtod(second, &end);
        if (end != second && *end == '\0' && o->price_in >= 0 &&
            o->price_out >= 0 && o->price_in < 1e9 && o->price_out < 1e9)
            return 0;
    }
    return tlr_err_set(err, TLR_EUSAGE,
                       "--llm-price: expected two prices such as 0.5/1.5, "
                       "found '%s'", text);
}

static bool is_interrupted(void *ctx)
{
    (void)ctx;
    return cli_interrupted();
}

static int net_options(struct tlr_net_options *o, const struct cli_llm_args *a,
                       char key[KEY_BYTES + 2], struct tlr_err *err)
{
    *o = (struct tlr_net_options)TLR_NET_OPTIONS_INIT;
    o->url = a->llm;
    o->api = a->api;
    o->model = a->model;
    o->ca_file = a->cacert;
    o->audit = a->audit;
    o->audit_no_text = a->audit_no_text;
    o->insecure = a->insecure;
    o->gzip = a->gzip;
    o->plain_http = a->plain_http;
    o->timeout_s = a->timeout;
    o->n_attempts = (int)a->retries + 1;
    o->max_calls = a->max_calls == CLI_NO_INT ? 0 : (uint64_t)a->max_calls;
    o->max_tok = a->max_tokens == CLI_NO_INT ? 0 : (uint64_t)a->max_tokens;
    o->max_wait_s = isnan(a->max_wait) ? 0 : a->max_wait;
    o->max_cost = isnan(a->max_cost) ? 0 : a->max_cost;
    o->is_stopped = a->outlives_signal ? NULL : is_interrupted;
    const char *from_env = getenv("TLR_API_KEY");
    int rc = a->key_file ? read_key(a->key_file, key, err) : 0;
    if (a->key_file)
        o->key = key;
    else if (from_env && from_env[0])
        o->key = from_env;
    return rc ? rc : read_price(a->price, o, err);
}

static int open_net(struct cli_llm *out, const struct cli_llm_args *a,
                    const struct tlr_model *like, bool is_required,
                    struct tlr_err *err)
{
    struct tlr_net_options o;
    struct tlr_err why = TLR_ERR_INIT;
    char key[KEY_BYTES + 2];
    int rc = net_options(&o, a, key, err);
    if (!rc)
        rc = tlr_net_open(&out->net, &o, like, err);
    for (volatile char *p = key; a->key_file && *p; p++)
        *p = '\0';
    if (rc)
        return rc;
    if (a->insecure)
        cli_complain("--insecure: the server's certificate is NOT checked; "
                     "anyone on the way can read and change the text");
    rc = tlr_net_connect(out->net, &why);
    if (!rc)
        return 0;
    if (is_required || rc == TLR_ECANCELLED)
        return tlr_err_set(err, rc, "%s", why.text);
    cli_complain("%s; the small model begins alone", why.text);
    return 0;
}

int cli_llm_open(struct cli_llm *out, const struct cli_llm_args *a,
                 const struct tlr_model *like, bool is_required,
                 struct tlr_err *err)
{
    memset(out, 0, sizeof *out);
    int rc = cli_llm_check(a, err);
    if (rc)
        return rc;
    return is_url(a->llm)
               ? open_net(out, a, like, is_required, err)
               : cli_model_open(&out->model, a->llm + PREFIX_BYTES, true, err);
}

void cli_llm_close(struct cli_llm *l)
{
    tlr_net_close(l->net);
    tlr_model_close(l->model);
    memset(l, 0, sizeof *l);
}

int cli_llm_expert(const struct cli_llm *l, struct tlr_expert *out,
                   const struct tlr_model *like,
                   const struct tlr_session_options *options,
                   struct tlr_err *err)
{
    memset(out, 0, sizeof *out);
    if (l->net)
        return tlr_net_expert(l->net, out, err);
    struct tlr_session_options o = TLR_SESSION_OPTIONS_INIT;
    if (options)
        o = *options;
    uint32_t most = tlr_model_config(l->model)->max_ctx;
    if (o.n_ctx > most)
        o.n_ctx = most;
    o.kv = TLR_KV_AUTO; /* --kv and --act are the small model's */
    o.act = TLR_ACT_AUTO;
    return tlr_expert_open_model(out, l->model, like, &o, err);
}

uint64_t cli_llm_fingerprint(const struct cli_llm *l)
{
    return l->net ? tlr_net_fingerprint(l->net)
                  : tlr_file_fingerprint(tlr_model_file(l->model));
}

/* ---- what left the device ---- */

void cli_print_llm(const struct cli_llm *l)
{
    struct tlr_expert_account n;
    char sent[24], received[24], cost[48] = "";
    if (!l->net)
        return;
    tlr_net_account(l->net, &n);
    if (tlr_net_cost(l->net) > 0)
        snprintf(cost, sizeof cost, ", cost at most %.6g",
                 tlr_net_cost(l->net));
    cli_note("sent to %s: %" PRIu64 " requests (%" PRIu64 " again), %" PRIu64
             " tokens, %s | received %s, %" PRIu64 " tokens, %" PRIu64
             " found in its cache | %" PRIu64 " connections, %" PRIu64
             " failed, %" PRIu64 " cancelled%s",
             tlr_net_about(l->net), n.n_requests, n.n_retries, n.sent_tok,
             cli_bytes(sent, sizeof sent, n.sent_bytes),
             cli_bytes(received, sizeof received, n.received_bytes),
             n.reply_tok, n.cached_tok, n.n_connections, n.n_failed,
             n.n_cancelled, cost);
}

json_t *cli_llm_json(const struct cli_llm *l)
{
    struct tlr_expert_account n;
    if (!l->net)
        return json_null();
    tlr_net_account(l->net, &n);
    const struct {
        const char *key;
        uint64_t value;
    } rows[] = {{"asks", n.n_asks}, {"requests", n.n_requests},
                {"retries", n.n_retries}, {"failed", n.n_failed},
                {"cancelled", n.n_cancelled}, {"connections", n.n_connections},
                {"sent_bytes", n.sent_bytes},
                {"received_bytes", n.received_bytes},
                {"sent_tokens", n.sent_tok}, {"reply_tokens", n.reply_tok},
                {"cached_tokens", n.cached_tok}};
    const char *about = tlr_net_about(l->net);
    json_t *j = json_object();
    cli_json_put(j, "server", cli_json_text(about, strlen(about)));
    for (size_t i = 0; i < CLI_COUNT(rows); i++)
        cli_json_put(j, rows[i].key, json_integer((json_int_t)rows[i].value));
    cli_json_put(j, "cost", cli_json_real(tlr_net_cost(l->net)));
    return j;
}

/* http_attempt.c - one transfer: its limits, its reply's bytes, its failure in words.
 *
 * No redirect is followed, no cookie kept, no body decompressed.  Sizes are
 * checked as the bytes come and not by what a header promises.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/clock.h"
#include "net/http_internal.h"

/* ---- what comes in ---- */

static size_t take_body(char *data, size_t size, size_t n, void *ctx)
{
    struct tlr_http_state *s = ctx;
    n *= size;
    if (s->call->reply.n + n > TLR_HTTP_REPLY_MAX) {
        tlr_buf_clear(&s->call->reply); /* nobody will look at it */
        s->is_too_long = true;
        return 0;
    }
    tlr_buf_put(&s->call->reply, data, n);
    return s->call->reply.failed ? 0 : n;
}

/* Value of the header `name` in a line, NULL if it is another one. */
static const char *header_value(const char *line, size_t n, const char *name,
                                size_t *len)
{
    size_t k = strlen(name);
    if (n <= k || strncasecmp(line, name, k) != 0 || line[k] != ':')
        return NULL;
    const char *at = line + k + 1, *end = line + n;
    while (at < end && (*at == ' ' || *at == '\t'))
        at++;
    while (end > at && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' '))
        end--;
    *len = (size_t)(end - at);
    return at;
}

/* Seconds, or a date. */
static double retry_after(const char *value, size_t n)
{
    char text[64], *end;
    snprintf(text, sizeof text, "%.*s", (int)(n < 63 ? n : 63), value);
    double s = strtod(text, &end);
    if (end != text && *end == '\0')
        return isfinite(s) && s >= 0 ? s : NAN;
    time_t at = curl_getdate(text, NULL), now = time(NULL);
    return at == -1 ? (double)NAN : at > now ? difftime(at, now) : 0;
}

static size_t take_header(char *line, size_t size, size_t n, void *ctx)
{
    struct tlr_http_state *s = ctx;
    size_t len;
    n *= size;
    s->header_bytes += n;
    if (s->header_bytes > TLR_HTTP_HEADERS_MAX) {
        s->is_too_long = true;
        return 0;
    }
    const char *v = header_value(line, n, "Content-Type", &len);
    if (v)
        snprintf(s->call->type, sizeof s->call->type, "%.*s",
                 (int)(len < 63 ? len : 63), v);
    v = header_value(line, n, "Retry-After", &len);
    if (v)
        s->call->retry_after_s = retry_after(v, len);
    return n;
}

/* ---- what goes out ---- */

/* Counts what leaves: sizes only, the bytes hold the key. */
static int count_sent(CURL *easy, curl_infotype type, char *data, size_t n,
                      void *ctx)
{
    struct tlr_http_state *s = ctx;
    (void)easy;
    (void)data;
    if (type == CURLINFO_HEADER_OUT || type == CURLINFO_DATA_OUT)
        s->call->sent_bytes += n;
    return 0;
}

static long ms_left(const struct tlr_http_call *c)
{
    uint64_t now = tlr_now_ns();
    uint64_t ms = c->deadline_ns > now ? (c->deadline_ns - now) / 1000000 : 0;
    return ms < 1 ? 1 : ms > 86400000 ? 86400000 : (long)ms;
}

static void set_limits(struct tlr_http *h, CURL *easy,
                       const struct tlr_http_call *c)
{
    long left = ms_left(c), connect = (long)h->o.connect_ms;
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, left);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                     connect < left ? connect : left);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS,
                     (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, h->o.insecure ? 0L : 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, h->o.insecure ? 0L : 2L);
    if (h->ca_file)
        curl_easy_setopt(easy, CURLOPT_CAINFO, h->ca_file);
    if (h->o.direct) /* else libcurl looks at http_proxy, NO_PROXY and so on */
        curl_easy_setopt(easy, CURLOPT_PROXY, "");
}

static int set_request(struct tlr_http *h, struct tlr_http_state *s)
{
    struct tlr_http_call *c = s->call;
    char url[2048];
    int n = snprintf(url, sizeof url, "%s%s", h->base, c->path);
    if (n < 0 || (size_t)n >= sizeof url)
        return tlr_err_set(&c->err, TLR_ELIMIT, "%s: the address is too long",
                           h->label);
    curl_easy_setopt(s->easy, CURLOPT_URL, url);
    static char gzip[] = "Content-Encoding: gzip";
    const struct tlr_buf *body = c->packed.n > 0 ? &c->packed : &c->body;
    s->encoding = (struct curl_slist){gzip, s->headers};
    curl_easy_setopt(s->easy, CURLOPT_HTTPHEADER,
                     body == &c->packed ? &s->encoding : s->headers);
    curl_easy_setopt(s->easy, CURLOPT_ERRORBUFFER, s->why);
    curl_easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(s->easy, CURLOPT_WRITEDATA, s);
    curl_easy_setopt(s->easy, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(s->easy, CURLOPT_HEADERDATA, s);
    curl_easy_setopt(s->easy, CURLOPT_PRIVATE, s);
    curl_easy_setopt(s->easy, CURLOPT_DEBUGFUNCTION, count_sent);
    curl_easy_setopt(s->easy, CURLOPT_DEBUGDATA, s);
    curl_easy_setopt(s->easy, CURLOPT_VERBOSE, 1L); /* to count_sent alone */
    if (c->is_post) {
        curl_easy_setopt(s->easy, CURLOPT_POST, 1L);
        curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, body->ptr);
        curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE,
                         (curl_off_t)body->n);
    }
    return 0;
}

void tlr_attempt_begin(struct tlr_http_call *c)
{
    c->code = 0;
    c->status = 0;
    c->type[0] = '\0';
    c->retry_after_s = NAN;
    tlr_err_clear(&c->err);
    tlr_buf_reset(&c->reply);
}

int tlr_attempt_start(struct tlr_http *h, struct tlr_http_state *s)
{
    struct tlr_http_call *c = s->call;
    tlr_attempt_begin(c);
    s->header_bytes = 0;
    s->is_too_long = false;
    s->why[0] = '\0';
    int rc = c->before ? c->before(c->ctx, c, &c->err) : 0;
    if (rc)
        return rc;
    curl_easy_reset(s->easy); /* keeps connections and sessions */
    set_limits(h, s->easy, c);
    rc = set_request(h, s);
    if (rc)
        return rc;
    c->n_attempts++;
    if (curl_multi_add_handle(h->multi, s->easy) != CURLM_OK)
        return tlr_err_nomem(&c->err, h->label, 0);
    return 0;
}

/* ---- how an attempt ended ---- */

static uint64_t info_ns(CURL *easy, CURLINFO what)
{
    curl_off_t us = 0;
    return curl_easy_getinfo(easy, what, &us) == CURLE_OK && us > 0
               ? (uint64_t)us * 1000
               : 0;
}

static uint64_t info_bytes(CURL *easy, CURLINFO what)
{
    curl_off_t n = 0;
    return curl_easy_getinfo(easy, what, &n) == CURLE_OK && n > 0 ? (uint64_t)n
                                                                  : 0;
}

void tlr_attempt_account(struct tlr_http_state *s)
{
    struct tlr_http_call *c = s->call;
    CURL *e = s->easy;
    long n = 0;
    uint64_t sent = info_ns(e, CURLINFO_PRETRANSFER_TIME_T);
    uint64_t first = info_ns(e, CURLINFO_STARTTRANSFER_TIME_T);
    curl_easy_getinfo(e, CURLINFO_NUM_CONNECTS, &n);
    c->n_connects += n > 0 ? (uint64_t)n : 0;
    curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &c->status);
    c->received_bytes +=
        s->header_bytes + info_bytes(e, CURLINFO_SIZE_DOWNLOAD_T);
    if (n > 0) {
        uint64_t name = info_ns(e, CURLINFO_NAMELOOKUP_TIME_T);
        uint64_t tcp = info_ns(e, CURLINFO_CONNECT_TIME_T);
        c->times.connect_ns += sent;
        c->times.round_trip_ns = tcp > name ? tcp - name : 0;
    }
    if (first > sent)
        c->times.first_byte_ns += first - sent;
}

void tlr_attempt_fail(struct tlr_http *h, struct tlr_http_state *s,
                      CURLcode result)
{
    struct tlr_http_call *c = s->call;
    const char *why = s->why[0] ? s->why : curl_easy_strerror(result);
    if (s->is_too_long)
        c->code = tlr_err_set(&c->err, TLR_ELIMIT,
                              "%s: reply: over %d KiB, given up", h->label,
                              TLR_HTTP_REPLY_MAX >> 10);
    else if (c->reply.failed)
        c->code = tlr_err_nomem(&c->err, h->label, c->reply.n);
    else if (result == CURLE_PEER_FAILED_VERIFICATION)
        c->code = tlr_err_set(&c->err, TLR_EMISMATCH,
                              "%s: its certificate is not to be trusted: %s; "
                              "give its authority with --cacert", h->label,
                              why);
    else
        c->code = tlr_err_set(&c->err, TLR_EIO, "%s: %s", h->label, why);
}

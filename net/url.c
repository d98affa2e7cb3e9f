/* url.c - see url.h; libcurl's parser takes the address apart, so that what is
 * checked is what is used. */
#include "net/url.h"

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

struct parts {
    char *scheme, *host, *port, *path, *user, *password, *query, *fragment;
};

static void clear(struct parts *p)
{
    curl_free(p->scheme);
    curl_free(p->host);
    curl_free(p->port);
    curl_free(p->path);
    curl_free(p->user);
    curl_free(p->password);
    curl_free(p->query);
    curl_free(p->fragment);
}

static CURLUcode take_apart(struct parts *p, const char *text)
{
    CURLU *u = curl_url();
    if (!u)
        return CURLUE_OUT_OF_MEMORY;
    CURLUcode rc = curl_url_set(u, CURLUPART_URL, text, 0);
    if (rc == CURLUE_OK) {
        rc = curl_url_get(u, CURLUPART_HOST, &p->host, 0);
        curl_url_get(u, CURLUPART_SCHEME, &p->scheme, 0);
        curl_url_get(u, CURLUPART_PORT, &p->port, 0);
        curl_url_get(u, CURLUPART_PATH, &p->path, 0);
        curl_url_get(u, CURLUPART_USER, &p->user, 0);
        curl_url_get(u, CURLUPART_PASSWORD, &p->password, 0);
        curl_url_get(u, CURLUPART_QUERY, &p->query, 0);
        curl_url_get(u, CURLUPART_FRAGMENT, &p->fragment, 0);
    }
    curl_url_cleanup(u);
    return rc;
}

static bool is_loopback(const char *host)
{
    unsigned a, b, c, d;
    char more;
    if (strcmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0)
        return true;
    return sscanf(host, "%3u.%3u.%3u.%3u%c", &a, &b, &c, &d, &more) == 4 &&
           a == 127;
}

static bool has_control(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text <= ' ' || *text == 0x7F)
            return true;
    return false;
}

static const char *fault(const struct parts *p, bool plain_http)
{
    if (!p->scheme ||
        (strcmp(p->scheme, "http") != 0 && strcmp(p->scheme, "https") != 0))
        return "expected http:// or https://";
    if (p->user || p->password)
        return "a user or password in the address would be seen by others; "
               "give a key in TLR_API_KEY or --llm-key-file";
    if (p->query || p->fragment)
        return "expected no query and no fragment";
    if (strcmp(p->scheme, "http") == 0 && !plain_http && !is_loopback(p->host))
        return "the text would cross the network in the clear; use https://, "
               "or allow it (--plain-http)";
    return NULL;
}

/* The path without the slash and the "/v1" at its end. */
static size_t path_length(const char *path)
{
    size_t n = strlen(path);
    while (n > 0 && path[n - 1] == '/')
        n--;
    if (n >= 3 && strncmp(path + n - 3, "/v1", 3) == 0)
        n -= 3;
    return n;
}

int tlr_url_check(struct tlr_url *out, const char *text, bool plain_http,
                  struct tlr_err *err)
{
    struct parts p = {0};
    memset(out, 0, sizeof *out);
    const char *what = has_control(text) ? "has a blank or control character"
                                         : NULL;
    CURLUcode rc = what ? CURLUE_OK : take_apart(&p, text);
    if (rc != CURLUE_OK)
        what = "is not an address";
    if (!what)
        what = fault(&p, plain_http);
    if (!what) {
        const char *colon = p.port ? ":" : "", *port = p.port ? p.port : "";
        int n_host = snprintf(out->host, sizeof out->host, "%s%s%s", p.host,
                              colon, port);
        int n = snprintf(out->base, sizeof out->base, "%s://%s%.*s", p.scheme,
                         out->host, (int)path_length(p.path), p.path);
        if (n_host < 0 || n < 0 || (size_t)n >= sizeof out->base)
            what = "is too long";
        out->is_https = strcmp(p.scheme, "https") == 0;
        out->is_loopback = is_loopback(p.host);
    }
    /* What is refused may hold a password: it is not repeated. */
    if (what)
        tlr_err_set(err, TLR_EUSAGE, "--llm: %s: %s",
                    p.user || p.password || !p.host ? "the address" : p.host,
                    what);
    clear(&p);
    return what ? TLR_EUSAGE : 0;
}

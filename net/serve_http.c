/* serve_http.c - see serve.h.  From a connection to a request that may be
 * answered: who asks, what for, and is it all here.
 *
 * A request that is refused is read to its end first, within bounds: a reply
 * while the client still sends would be lost with the connection.
 */
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "net/serve_exchange.h"

enum {
    DISCARD_BYTES = 16 << 20, /* most of a refused body */
    HEADER_BYTES = 16384,     /* of a connection, its buffers included */
    IDLE_S = 30
};

/* ---- may it be asked? ---- */

static const char *header(struct tlr_exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

/* Takes as long whatever is different. */
static bool is_key(const struct tlr_serve_options *o, const char *given)
{
    size_t n = strlen(given);
    bool found = false;
    for (int i = 0; i < o->n_keys; i++) {
        size_t len = strlen(o->keys[i]);
        unsigned char diff = (unsigned char)(len != n);
        for (size_t k = 0; k < len; k++)
            diff |= (unsigned char)(o->keys[i][k] ^ given[n ? k % n : 0]);
        found |= diff == 0 && n > 0;
    }
    return found;
}

/* "localhost", "127.x.y.z", "[::1]" or the name we were given, with or without
 * a port: another one means that somebody's page had its name point here. */
static bool is_own_host(const struct tlr_server *s, const char *host)
{
    size_t n = strlen(host);
    const char *colon = strrchr(host, ':');
    if (colon && strspn(colon + 1, "0123456789") == strlen(colon + 1))
        n = (size_t)(colon - host);
    if (n >= 2 && host[0] == '[' && host[n - 1] == ']')
        return n == 5 && memcmp(host, "[::1]", 5) == 0;
    if ((n == 9 && strncasecmp(host, "localhost", 9) == 0) ||
        (n == strlen(s->o.host) && strncasecmp(host, s->o.host, n) == 0))
        return true;
    return n >= 4 && memcmp(host, "127.", 4) == 0 &&
           strspn(host, "0123456789.") >= n;
}

static bool is_own_origin(const char *origin, const char *host)
{
    static const char scheme[] = "http://";
    return host && strncmp(origin, scheme, sizeof scheme - 1) == 0 &&
           strcasecmp(origin + sizeof scheme - 1, host) == 0;
}

static void refuse(struct tlr_exchange *x, int status, const char *code,
                   const char *text)
{
    if (x->fault.status == 0)
        tlr_fault_of(&x->fault, status, code, text);
}

/* Without keys, pages of other sites are kept out by what a browser says of
 * itself; with keys, they have none. */
static void check_sender(struct tlr_exchange *x)
{
    const struct tlr_serve_options *o = &x->server->o;
    const char *host = header(x, "Host"), *origin = header(x, "Origin");
    if (o->n_keys == 0) {
        if (host && !is_own_host(x->server, host))
            refuse(x, 403, "wrong_host",
                   "Host: this server answers to its own name only");
        if (origin && !is_own_origin(origin, host))
            refuse(x, 403, "wrong_origin",
                   "Origin: pages of other sites may not ask this server");
        return;
    }
    const char *given = header(x, "Authorization");
    if (x->route && x->route->is_open)
        return;
    if (!given || strncasecmp(given, "Bearer ", 7) != 0)
        refuse(x, 401, "invalid_api_key",
               "Authorization: expected \"Bearer KEY\"");
    else if (!is_key(o, given + 7))
        refuse(x, 401, "invalid_api_key", "Authorization: the key is wrong");
}

static void refuse_large(struct tlr_exchange *x)
{
    char text[96];
    snprintf(text, sizeof text, "body: more than %zu bytes",
             x->server->o.max_body_bytes);
    refuse(x, 413, "too_large", text);
}

/* ---- a request arrives ---- */

static enum MHD_Result begin(struct tlr_server *s, struct MHD_Connection *c,
                             const char *url, const char *method, void **ctx)
{
    struct tlr_exchange *x = *ctx = tlr_calloc(1, sizeof *x);
    if (!x)
        return MHD_NO;
    x->server = s;
    x->connection = c;
    snprintf(x->url, sizeof x->url, "%s", url);
    tlr_scheduler_lock(s->scheduler);
    s->n_open++;
    tlr_scheduler_unlock(s->scheduler);
    x->route = tlr_route_find(method, url, &x->fault);
    check_sender(x);
    const char *length = header(x, "Content-Length");
    unsigned long long n = 0;
    if (length && sscanf(length, "%llu", &n) == 1 &&
        n > s->o.max_body_bytes) {
        refuse_large(x);
        if (n > DISCARD_BYTES)
            return tlr_send_fault(x, &x->fault);
    }
    return MHD_YES;
}

static enum MHD_Result take_body(struct tlr_exchange *x, const char *bytes,
                                 size_t n)
{
    if (x->fault.status == 0 &&
        n > x->server->o.max_body_bytes - x->body.n)
        refuse_large(x);
    if (x->fault.status) {
        tlr_buffer_clear(&x->body);
        x->n_discarded += n;
        return x->n_discarded > DISCARD_BYTES ? MHD_NO : MHD_YES;
    }
    return tlr_buffer_add(&x->body, bytes, n, NULL) ? MHD_NO : MHD_YES;
}

static struct tlr_watched *watched(struct MHD_Connection *c)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *c,
                                  const char *url, const char *method,
                                  const char *version, const char *upload,
                                  size_t *n_upload, void **ctx)
{
    (void)version;
    struct tlr_server *s = cls;
    struct tlr_exchange *x = *ctx;
    if (!x)
        return begin(s, c, url, method, ctx);
    if (*n_upload > 0) {
        size_t n = *n_upload;
        *n_upload = 0;
        return take_body(x, upload, n);
    }
    if (!x->is_received)
        tlr_watch_received(s->watch, watched(c), true);
    x->is_received = true;
    if (x->job)
        return tlr_answer_job(x);
    return x->fault.status ? tlr_send_fault(x, &x->fault)
                           : x->route->answer(x);
}

static void on_completed(void *cls, struct MHD_Connection *c, void **ctx,
                         enum MHD_RequestTerminationCode why)
{
    (void)why;
    struct tlr_server *s = cls;
    struct tlr_exchange *x = *ctx;
    tlr_watch_received(s->watch, watched(c), false);
    if (!x)
        return;
    tlr_exchange_leave(x);
    tlr_buffer_clear(&x->body);
    tlr_buffer_clear(&x->out);
    tlr_free(x);
    *ctx = NULL;
    tlr_scheduler_lock(s->scheduler);
    s->n_open--;
    tlr_scheduler_unlock(s->scheduler);
}

static void on_connection(void *cls, struct MHD_Connection *c,
                          void **socket_ctx,
                          enum MHD_ConnectionNotificationCode code)
{
    struct tlr_server *s = cls;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        tlr_watch_remove(s->watch, *socket_ctx);
        return;
    }
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    *socket_ctx = info ? tlr_watch_add(s->watch, info->connect_fd) : NULL;
}

/* ---- the port ---- */

static bool is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, a, sizeof in);
        return ntohl(in.sin_addr.s_addr) >> 24 == 127;
    }
    struct sockaddr_in6 in6;
    memcpy(&in6, a, sizeof in6);
    return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
}

/* The first address of the host; freeaddrinfo it. */
static int resolve(const struct tlr_serve_options *o, struct addrinfo **out,
                   struct tlr_err *err)
{
    char port[8];
    struct addrinfo hints = {.ai_flags = AI_PASSIVE,
                             .ai_socktype = SOCK_STREAM};
    snprintf(port, sizeof port, "%u", (unsigned)o->port);
    int why = getaddrinfo(o->host, port, &hints, out);
    if (why)
        return tlr_err_set(err, TLR_ENOTFOUND, "--host %s: %s", o->host,
                           gai_strerror(why));
    if (is_loopback((*out)->ai_addr) || o->n_keys > 0)
        return 0;
    freeaddrinfo(*out);
    *out = NULL;
    return tlr_err_set(err, TLR_EUSAGE,
                       "--host %s: others than this machine could reach it; "
                       "give keys to ask them for (--api-key-file), or stay "
                       "with 127.0.0.1", o->host);
}

static int listen_on(struct tlr_server *s, struct tlr_err *err)
{
    struct addrinfo *a = NULL;
    int rc = resolve(&s->o, &a, err);
    if (rc)
        return rc;
    unsigned flags = MHD_USE_AUTO_INTERNAL_THREAD | MHD_USE_SUSPEND_RESUME |
                     (a->ai_family == AF_INET6 ? (unsigned)MHD_USE_IPv6 : 0u);
    s->daemon = MHD_start_daemon(
        flags, s->o.port, NULL, NULL, on_request, s, MHD_OPTION_SOCK_ADDR,
        a->ai_addr, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, s,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)s->o.max_connections,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEADER_BYTES,
        MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_END);
    freeaddrinfo(a);
    if (!s->daemon)
        return tlr_err_set(err, TLR_EIO,
                           "port %u of %s: cannot listen there; is it taken? "
                           "--port 0 finds a free one", (unsigned)s->o.port,
                           s->o.host);
    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_BIND_PORT);
    s->port = info ? info->port : s->o.port;
    return 0;
}

/* ---- from outside ---- */

int tlr_server_start(struct tlr_server **out,
                     const struct tlr_serve_options *options,
                     struct tlr_err *err)
{
    struct tlr_server *s = *out = tlr_calloc(1, sizeof *s);
    if (!s)
        return tlr_err_nomem(err, "server", sizeof *s);
    s->o = *options;
    s->listen_fd = -1;
    s->created = (int64_t)time(NULL);
    s->seed = tlr_hash_u64(tlr_now_ns(), (uint64_t)getpid()) >> 12;
    int rc = tlr_scheduler_new(&s->scheduler, options->limits.model,
                               &options->scheduler, err);
    if (!rc)
        rc = tlr_watch_new(&s->watch, options->receive_s, err);
    if (!rc) {
        s->o.limits.n_ctx = tlr_scheduler_ctx(s->scheduler);
        rc = listen_on(s, err);
    }
    if (rc) {
        tlr_server_free(s);
        *out = NULL;
    }
    return rc;
}

uint16_t tlr_server_port(const struct tlr_server *s)
{
    return s->port;
}

struct tlr_scheduler *tlr_server_scheduler(struct tlr_server *s)
{
    return s->scheduler;
}

void tlr_server_drain(struct tlr_server *s)
{
    if (s->listen_fd < 0)
        s->listen_fd = MHD_quiesce_daemon(s->daemon);
    tlr_scheduler_drain(s->scheduler);
}

int tlr_server_open_requests(struct tlr_server *s)
{
    tlr_scheduler_lock(s->scheduler);
    int n = s->n_open;
    tlr_scheduler_unlock(s->scheduler);
    return n;
}

void tlr_server_free(struct tlr_server *s)
{
    if (!s)
        return;
    /* The jobs' end resumes what is suspended, as the library demands. */
    tlr_scheduler_stop(s->scheduler);
    if (s->daemon)
        MHD_stop_daemon(s->daemon);
    if (s->listen_fd >= 0)
        close(s->listen_fd);
    tlr_watch_free(s->watch);
    tlr_scheduler_free(s->scheduler);
    tlr_free(s);
}

int tlr_keys_parse(char *text, const char *label, const char **keys,
                   int *n_keys, struct tlr_err *err)
{
    char *rest = text, *line;
    *n_keys = 0;
    while ((line = strsep(&rest, "\n")) != NULL) {
        size_t n = strlen(line);
        while (n > 0 && strchr(" \t\r", line[n - 1]))
            line[--n] = '\0';
        if (n == 0 || line[0] == '#')
            continue;
        for (size_t i = 0; i < n; i++)
            if (line[i] <= ' ' || line[i] > '~')
                return tlr_err_set(err, TLR_EFORMAT,
                                   "%s: a key may have printable ASCII "
                                   "without blanks only", label);
        if (n < TLR_KEY_BYTES_MIN || *n_keys == TLR_KEYS_MAX)
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: expected up to %d keys of %d or more "
                               "characters, a line each", label,
                               (int)TLR_KEYS_MAX, (int)TLR_KEY_BYTES_MIN);
        keys[(*n_keys)++] = line;
    }
    return *n_keys > 0 ? 0
                       : tlr_err_set(err, TLR_EFORMAT, "%s: has no key in it",
                                     label);
}

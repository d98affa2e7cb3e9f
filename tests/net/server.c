/* server.c - see server.h: sockets, requests, and how an answer is spoiled. */
#include "tests/net/server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "base/hash.h"
#include "tests/net/hash_llm.h"
#include "tests/support/tlr_check.h"

enum { MAX_LINES = 256, REQUEST_BYTES = 1 << 17 };

struct server {
    struct server_options o;
    char url[64];
    int listener;
    pthread_t acceptor;
    pthread_mutex_t lock; /* of all that follows */
    bool quits;
    struct server_counts n;
    enum fault fault;
    int every, fault_ms, delay_ms;
    double share; /* of mixed faults */
    uint64_t seed;
    int sockets[MAX_LINES];
    pthread_t lines[MAX_LINES];
    int n_lines;
};

struct line {
    struct server *s;
    int fd, index;
};

/* ---- time and bytes ---- */

static bool quits(struct server *s)
{
    pthread_mutex_lock(&s->lock);
    bool q = s->quits;
    pthread_mutex_unlock(&s->lock);
    return q;
}

static void pause_ms(struct server *s, int ms)
{
    struct timespec step = {0, 5000000};
    for (int i = 0; i < ms; i += 5) {
        if (quits(s))
            return;
        nanosleep(&step, NULL);
    }
}

static bool send_all(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t k = send(fd, bytes, n, MSG_NOSIGNAL);
        if (k <= 0)
            return false;
        bytes += k;
        n -= (size_t)k;
    }
    return true;
}

static bool send_reply(int fd, int status, const char *type, const char *more,
                       const char *body, size_t n_body, size_t n_promised)
{
    char head[1024];
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 %d x\r\nContent-Type: %s\r\n%s"
                     "Content-Length: %zu\r\n\r\n",
                     status, type, more, n_promised);
    return send_all(fd, head, (size_t)n) && send_all(fd, body, n_body);
}

static const char of_json[] = "application/json";

static bool send_json(int fd, int status, const char *body, size_t n)
{
    return send_reply(fd, status, of_json, "", body, n, n);
}

/* ---- spoiled answers ---- */

static char *filled(size_t n, const char *begin, char fill, const char *end)
{
    char *text = malloc(n);
    ck_assert(text != NULL);
    memset(text, fill, n);
    memcpy(text, begin, strlen(begin));
    memcpy(text + n - strlen(end), end, strlen(end));
    return text;
}

static bool send_status(int fd, enum fault f)
{
    static const int codes[] = {429, 500, 502, 503, 400, 404};
    static const char body[] = "{\"error\":{\"message\":\"a bad \\u001b[31mday\"}}";
    int code = codes[f - FAULT_STATUS_429];
    return send_reply(fd, code, of_json,
                      code == 429 ? "Retry-After: 0\r\n" : "", body,
                      sizeof body - 1, sizeof body - 1);
}

/* Bodies that are JSON's fault: of SGLang's shape, which has all the others'
 * members too. */
static const char *bad_body(enum fault f)
{
    switch (f) {
    case FAULT_HTML:
    case FAULT_NOT_JSON:
        return "<html><body>504 Gateway Time-out</body></html>";
    case FAULT_BAD_UTF8:
        return "{\"output_ids\":[7],\"tokens\":[7],\"text\":\"\xFF\"}";
    case FAULT_TWICE:
        return "{\"output_ids\":[7],\"output_ids\":[8],\"tokens\":[7],\"tokens\":"
               "[8]}";
    case FAULT_NUL:
        return "{\"output_ids\":[7],\"tokens\":[7],\"text\":\"\\u0000\"}";
    case FAULT_TRAILING:
        return "{\"output_ids\":[7],\"tokens\":[7]} {}";
    case FAULT_BAD_ID:
        return "{\"output_ids\":[99999],\"tokens\":[99999],\"content\":\"x\","
               "\"choices\":[{\"text\":\"x\",\"token_ids\":[99999]}]}";
    case FAULT_MANY_IDS:
        return "{\"output_ids\":[7,7,7,7,7,7,7,7,7,7,7,7],\"tokens\":"
               "[7,7,7,7,7,7,7,7,7,7,7,7],\"choices\":[{\"text\":\"x\","
               "\"token_ids\":[7,7,7,7,7,7,7,7,7,7,7,7]}]}";
    case FAULT_NO_TOKEN:
        return "{\"output_ids\":[],\"tokens\":[],\"content\":\"\",\"stop_type\":"
               "\"limit\",\"meta_info\":{\"finish_reason\":{\"type\":\"length\"}},"
               "\"choices\":[{\"text\":\"\",\"token_ids\":[],\"finish_reason\":"
               "\"length\"}]}";
    default:
        return "{\"error\":{\"message\":\"overloaded\"}}";
    }
}

static bool send_big(int fd, enum fault f)
{
    size_t n = f == FAULT_HUGE ? 2u << 20 : f == FAULT_DEEP ? 10000 : 100 << 10;
    char *text = f == FAULT_HUGE ? filled(n, "{\"text\":\"", 'x', "\"}")
                 : f == FAULT_DEEP ? filled(n, "[", '[', "]")
                                   : filled(n, "X-Long: ", 'x', "\r\n");
    if (f == FAULT_DEEP)
        memset(text + n / 2, ']', n - n / 2);
    /* libcurl refuses a single line of that length by itself */
    for (size_t i = 1000; f == FAULT_HUGE_HEADER && i + 1000 < n; i += 1000)
        memcpy(text + i, "\r\nX: ", 5);
    bool ok;
    if (f == FAULT_HUGE_HEADER) {
        static const char begin[] = "HTTP/1.1 200 x\r\n";
        static const char end[] = "Content-Length: 2\r\n\r\n{}";
        ok = send_all(fd, begin, sizeof begin - 1) && send_all(fd, text, n) &&
             send_all(fd, end, sizeof end - 1);
    } else {
        ok = send_json(fd, 200, text, n);
    }
    free(text);
    return ok;
}

static bool trickle(struct server *s, int fd, const char *body, size_t n, int ms)
{
    if (!send_reply(fd, 200, of_json, "", "", 0, n))
        return false;
    for (size_t i = 0; i < n && !quits(s); i++) {
        pause_ms(s, ms);
        if (!send_all(fd, body + i, 1))
            return false;
    }
    return true;
}

static void reset(int fd)
{
    struct linger now = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

/* The answer that would be right is body; false closes the connection. */
static bool spoil(struct server *s, int fd, enum fault f, int ms,
                  const char *body, size_t n)
{
    switch (f) {
    case FAULT_DROP:
        return false;
    case FAULT_RESET:
        reset(fd);
        return false;
    case FAULT_TRUNCATE:
        send_reply(fd, 200, of_json, "", body, n / 2, n);
        return false;
    case FAULT_SHORT_LENGTH:
        send_reply(fd, 200, of_json, "", body, n, n - 3);
        return false;
    case FAULT_HANG:
        pause_ms(s, ms);
        return false;
    case FAULT_TRICKLE:
        return trickle(s, fd, body, n, ms);
    case FAULT_REDIRECT:
        return send_reply(fd, 307, of_json,
                          "Location: http://127.0.0.2:9/generate\r\n", body, n,
                          n);
    case FAULT_HUGE:
    case FAULT_HUGE_HEADER:
    case FAULT_DEEP:
        return send_big(fd, f);
    case FAULT_STATUS_429:
    case FAULT_STATUS_500:
    case FAULT_STATUS_502:
    case FAULT_STATUS_503:
    case FAULT_STATUS_400:
    case FAULT_STATUS_404:
        return send_status(fd, f);
    default:
        body = bad_body(f);
        return send_reply(fd, 200, f == FAULT_HTML ? "text/html" : of_json, "",
                          body, strlen(body), strlen(body));
    }
}

/* ---- one connection ---- */

struct request {
    char method[8], path[128];
    bool has_key, is_packed;
    char *body;
    size_t n_body;
};

static bool take_head(const struct server *s, char *head, struct request *r)
{
    char want[256];
    char *length = strcasestr(head, "\r\nContent-Length:");
    char *key = strcasestr(head, "\r\nAuthorization: Bearer ");
    snprintf(want, sizeof want, "%s\r\n", s->o.key ? s->o.key : "");
    r->has_key = key && strncmp(key + 24, want, strlen(want)) == 0;
    r->n_body = length ? (size_t)atol(length + 17) : 0;
    r->is_packed = strcasestr(head, "\r\nContent-Encoding: gzip\r\n") != NULL;
    return sscanf(head, "%7s %127s", r->method, r->path) == 2;
}

/* Reads one request into buf; false: the other side is done. */
static bool receive(struct server *s, int fd, char *buf, struct request *r)
{
    size_t n = 0;
    char *end = NULL;
    while (!end || n < (size_t)(end + 4 - buf) + r->n_body) {
        ssize_t k = recv(fd, buf + n, REQUEST_BYTES - 1 - n, 0);
        if (k <= 0)
            return false;
        n += (size_t)k;
        buf[n] = '\0';
        if (!end && (end = strstr(buf, "\r\n\r\n")) && !take_head(s, buf, r))
            return false;
    }
    r->body = end + 4;
    return true;
}

/* A hang outlasts the tests' deadlines, as does a reply at 10 ms a byte. */
static enum fault choose_mixed(const struct server *s, int *ms)
{
    uint64_t h = tlr_hash_u64(s->seed, (uint64_t)s->n.n_questions);
    if ((double)(h % 10000) >= s->share * 10000)
        return FAULT_NONE;
    enum fault f = (enum fault)(1 + (h >> 32) % (N_FAULTS - 1));
    *ms = f == FAULT_HANG ? 2000 : 10;
    return f;
}

/* Whether this question's answer is to be spoiled, and how. */
static enum fault choose(struct server *s, bool is_question, int *ms)
{
    enum fault f = FAULT_NONE;
    pthread_mutex_lock(&s->lock);
    s->n.n_questions += is_question;
    *ms = s->fault_ms;
    if (is_question && s->every > 0 && s->n.n_questions % s->every == 0)
        f = s->fault;
    if (is_question && s->share > 0)
        f = choose_mixed(s, ms);
    s->n.n_spoiled += f != FAULT_NONE;
    pthread_mutex_unlock(&s->lock);
    return f;
}

static size_t unpack(const struct request *r, char *out, size_t cap)
{
    enum { GZIP_WINDOW = 15 + 16 };
    z_stream z;
    memset(&z, 0, sizeof z);
    ck_assert_int_eq(inflateInit2(&z, GZIP_WINDOW), Z_OK);
    z.next_in = (unsigned char *)r->body;
    z.avail_in = (uInt)r->n_body;
    z.next_out = (unsigned char *)out;
    z.avail_out = (uInt)cap;
    ck_assert_int_eq(inflate(&z, Z_FINISH), Z_STREAM_END);
    inflateEnd(&z);
    return z.total_out;
}

static bool serve_one(struct server *s, int fd, const struct request *r)
{
    char *said = NULL, text[16384];
    const char *asked = r->body;
    size_t n_asked = r->n_body;
    bool is_question, ok;
    int ms, status;
    pthread_mutex_lock(&s->lock);
    s->n.n_requests++;
    s->n.n_with_key += r->has_key;
    s->n.body_bytes += r->n_body;
    s->n.n_packed += r->is_packed;
    int delay = s->delay_ms;
    pthread_mutex_unlock(&s->lock);
    if (s->o.key && !r->has_key)
        return send_json(fd, 401, "{\"error\":\"Unauthorized\"}", 24);
    if (r->is_packed && s->o.unpacks) {
        n_asked = unpack(r, text, sizeof text);
        asked = text;
    }
    status = hash_reply(&s->o, r->method, r->path, asked, n_asked, &said,
                        &is_question);
    enum fault f = choose(s, is_question, &ms);
    const char *body = said ? said : "{\"detail\":\"Not Found\"}";
    pause_ms(s, delay);
    ok = f == FAULT_NONE ? send_json(fd, status, body, strlen(body))
                         : spoil(s, fd, f, ms, body, strlen(body));
    free(said);
    return ok && !s->o.closes_idle;
}

static void *serve_line(void *arg)
{
    struct line *l = arg;
    char *buf = malloc(REQUEST_BYTES);
    struct request r;
    int one = 1;
    setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    while (buf && receive(l->s, l->fd, buf, &r) && serve_one(l->s, l->fd, &r))
        continue;
    pthread_mutex_lock(&l->s->lock);
    close(l->fd);
    l->s->sockets[l->index] = -1;
    pthread_mutex_unlock(&l->s->lock);
    free(buf);
    free(l);
    return NULL;
}

/* Joins threads that have ended, so that any number of connections may come. */
static int free_line(struct server *s)
{
    for (int i = 0; i < s->n_lines; i++)
        if (s->sockets[i] < 0) {
            pthread_t done = s->lines[i];
            pthread_mutex_unlock(&s->lock);
            pthread_join(done, NULL);
            pthread_mutex_lock(&s->lock);
            return i;
        }
    ck_assert_int_lt(s->n_lines, MAX_LINES);
    return s->n_lines++;
}

static void *accept_lines(void *arg)
{
    struct server *s = arg;
    for (;;) {
        int fd = accept(s->listener, NULL, NULL);
        pthread_mutex_lock(&s->lock);
        if (fd < 0 || s->quits) {
            pthread_mutex_unlock(&s->lock);
            if (fd >= 0)
                close(fd);
            return NULL;
        }
        struct line *l = malloc(sizeof *l);
        ck_assert(l != NULL);
        *l = (struct line){s, fd, free_line(s)};
        s->sockets[l->index] = fd;
        s->n.n_connections++;
        ck_assert_int_eq(pthread_create(&s->lines[l->index], NULL, serve_line, l),
                         0);
        pthread_mutex_unlock(&s->lock);
    }
}

/* ---- the server ---- */

struct server *server_start(const struct server_options *o)
{
    struct server *s = calloc(1, sizeof *s);
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t n = sizeof at;
    ck_assert(s != NULL);
    s->o = *o;
    pthread_mutex_init(&s->lock, NULL);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s->listener = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_ge(s->listener, 0);
    ck_assert_int_eq(bind(s->listener, (struct sockaddr *)&at, sizeof at), 0);
    ck_assert_int_eq(listen(s->listener, 64), 0);
    ck_assert_int_eq(getsockname(s->listener, (struct sockaddr *)&at, &n), 0);
    snprintf(s->url, sizeof s->url, "http://127.0.0.1:%d", ntohs(at.sin_port));
    ck_assert_int_eq(pthread_create(&s->acceptor, NULL, accept_lines, s), 0);
    return s;
}

void server_stop(struct server *s)
{
    pthread_mutex_lock(&s->lock);
    s->quits = true;
    shutdown(s->listener, SHUT_RDWR);
    for (int i = 0; i < s->n_lines; i++)
        if (s->sockets[i] >= 0)
            shutdown(s->sockets[i], SHUT_RDWR);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->acceptor, NULL);
    for (int i = 0; i < s->n_lines; i++)
        pthread_join(s->lines[i], NULL);
    close(s->listener);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

const char *server_url(const struct server *s)
{
    return s->url;
}

void server_spoil(struct server *s, enum fault f, int every, int ms)
{
    pthread_mutex_lock(&s->lock);
    s->fault = f;
    s->every = every;
    s->fault_ms = ms;
    s->share = 0;
    s->n.n_questions = 0;
    pthread_mutex_unlock(&s->lock);
}

void server_spoil_mixed(struct server *s, double share, uint64_t seed)
{
    pthread_mutex_lock(&s->lock);
    s->every = 0;
    s->share = share;
    s->seed = seed;
    s->n.n_questions = 0;
    pthread_mutex_unlock(&s->lock);
}

void server_delay(struct server *s, int ms)
{
    pthread_mutex_lock(&s->lock);
    s->delay_ms = ms;
    pthread_mutex_unlock(&s->lock);
}

struct server_counts server_counts(const struct server *s)
{
    struct server *own = (struct server *)(uintptr_t)s;
    pthread_mutex_lock(&own->lock);
    struct server_counts n = own->n;
    pthread_mutex_unlock(&own->lock);
    return n;
}

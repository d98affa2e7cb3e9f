/* loopback.c - see loopback.h. */
#include "bench/escalate/loopback.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "bench/escalate/oracle.h"

enum { MAX_CLIENTS = 32, MAX_REQUEST = 1 << 20, MAX_TOOK = 4096 };

struct client {
    struct loopback *server;
    pthread_t thread;
    int fd;
};

struct loopback {
    struct tlr_expert *llm;
    pthread_mutex_t asking;
    const struct tlr_model *like;
    double latency_ms, think_ms;
    int fd;
    char url[48];
    pthread_t thread;
    struct client clients[MAX_CLIENTS];
    int n_clients;
    float took_ms[MAX_TOOK]; /* under the lock, like the next */
    size_t n_took;
};

/* ---- one request ---- */

static json_t *complete(struct loopback *s, const json_t *body)
{
    const json_t *prompt = json_object_get(body, "prompt");
    size_t n = json_array_size(prompt);
    int32_t *ids = tlr_calloc(n + 1, sizeof *ids);
    json_t *tokens = json_array();
    struct tlr_expert_reply r;
    for (size_t i = 0; ids && i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(prompt, i));
    pthread_mutex_lock(&s->asking);
    if (ids && n > 0 &&
        json_integer_value(json_object_get(body, "n_predict")) > 0 &&
        !tlr_expert_ask(s->llm, ids, n, 1, tlr_model_n_ids(s->like), &r, NULL))
        json_array_append_new(tokens, json_integer(r.ids[0]));
    pthread_mutex_unlock(&s->asking);
    tlr_free(ids);
    return json_pack("{s:s, s:o, s:s, s:I, s:{s:f, s:f}}", "content", "",
                     "tokens", tokens, "stop_type", "limit", "tokens_evaluated",
                     (json_int_t)n, "timings", "prompt_ms", 0.0,
                     "predicted_ms", s->think_ms);
}

static json_t *tokenize(const struct loopback *s, const json_t *body)
{
    const json_t *text = json_object_get(body, "content");
    struct tlr_ids ids = {0};
    json_t *tokens = json_array();
    tlr_encode(tlr_model_tokenizer(s->like), json_string_value(text),
               json_string_length(text), TLR_ENCODE_SPECIAL, &ids, NULL);
    for (size_t i = 0; i < ids.n; i++)
        json_array_append_new(tokens, json_integer(ids.ids[i]));
    tlr_ids_clear(&ids);
    return json_pack("{s:o}", "tokens", tokens);
}

static void note_took(struct loopback *s, uint64_t ns)
{
    pthread_mutex_lock(&s->asking);
    if (s->n_took < MAX_TOOK)
        s->took_ms[s->n_took++] = (float)((double)ns / 1e6);
    pthread_mutex_unlock(&s->asking);
}

static void answer(struct client *c, const char *path, const char *text,
                   size_t n, uint64_t read_ns)
{
    char head[160];
    json_t *body = json_loadb(text, n, 0, NULL), *reply = NULL;
    bool is_asked = strncmp(path, "/completion ", 12) == 0;
    if (is_asked)
        reply = complete(c->server, body);
    else if (strncmp(path, "/tokenize ", 10) == 0)
        reply = tokenize(c->server, body);
    char *dump = json_dumps(reply ? reply : body, JSON_COMPACT);
    int len = snprintf(head, sizeof head,
                       "HTTP/1.1 %s\r\nContent-Type: application/json\r\n"
                       "Content-Length: %zu\r\n\r\n",
                       reply ? "200 OK" : "404 Not Found",
                       dump ? strlen(dump) : 0);
    if (is_asked) {
        sleep_until(read_ns + (uint64_t)(c->server->latency_ms * 1e6));
        note_took(c->server, tlr_now_ns() - read_ns);
    }
    if (len > 0 && send(c->fd, head, (size_t)len, MSG_MORE | MSG_NOSIGNAL) > 0 &&
        dump)
        (void)!send(c->fd, dump, strlen(dump), MSG_NOSIGNAL);
    free(dump);
    json_decref(reply);
    json_decref(body);
}

/* Bytes of the request at the start of text[n], 0: not all of it is there. */
static size_t whole(const char *text, size_t n, const char **body)
{
    static const char field[] = "content-length:";
    const char *end = memmem(text, n, "\r\n\r\n", 4);
    size_t length = 0;
    if (!end)
        return 0;
    for (const char *at = text; at < end; at++)
        if (strncasecmp(at, field, sizeof field - 1) == 0)
            length = strtoul(at + sizeof field - 1, NULL, 10);
    *body = end + 4;
    size_t all = (size_t)(*body - text) + length;
    return all <= n ? all : 0;
}

static void *talk(void *arg)
{
    struct client *c = arg;
    char *text = tlr_calloc(MAX_REQUEST + 1, 1);
    size_t n = 0;
    for (ssize_t got; text && n < MAX_REQUEST &&
                      (got = recv(c->fd, text + n, MAX_REQUEST - n, 0)) > 0;) {
        const char *body = NULL;
        n += (size_t)got;
        text[n] = '\0';
        for (size_t used; (used = whole(text, n, &body)) > 0;) {
            const char *path = strchr(text, ' ');
            if (path)
                answer(c, path + 1, body, used - (size_t)(body - text),
                       tlr_now_ns());
            memmove(text, text + used, n - used + 1);
            n -= used;
        }
    }
    tlr_free(text);
    return NULL;
}

/* ---- the server ---- */

static void *serve(void *arg)
{
    struct loopback *s = arg;
    int on = 1;
    while (s->n_clients < MAX_CLIENTS) {
        int fd = accept(s->fd, NULL, NULL);
        if (fd < 0)
            return NULL;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct client *c = &s->clients[s->n_clients];
        *c = (struct client){.server = s, .fd = fd};
        if (pthread_create(&c->thread, NULL, talk, c) == 0)
            s->n_clients++;
        else
            close(fd);
    }
    return NULL;
}

int loopback_open(struct loopback **out, struct tlr_expert *llm,
                  const struct tlr_model *like, struct tlr_err *err)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t len = sizeof at;
    struct loopback *s = tlr_calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return tlr_err_nomem(err, "loopback", sizeof *s);
    s->llm = llm;
    pthread_mutex_init(&s->asking, NULL);
    s->like = like;
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (s->fd < 0 || bind(s->fd, (struct sockaddr *)&at, sizeof at) != 0 ||
        listen(s->fd, MAX_CLIENTS) != 0 ||
        getsockname(s->fd, (struct sockaddr *)&at, &len) != 0 ||
        pthread_create(&s->thread, NULL, serve, s) != 0) {
        if (s->fd >= 0)
            close(s->fd);
        pthread_mutex_destroy(&s->asking);
        tlr_free(s);
        return tlr_err_set(err, TLR_EIO, "loopback: no server could be made");
    }
    snprintf(s->url, sizeof s->url, "http://127.0.0.1:%d", ntohs(at.sin_port));
    *out = s;
    return 0;
}

void loopback_close(struct loopback *s)
{
    if (!s)
        return;
    shutdown(s->fd, SHUT_RDWR); /* ends accept */
    pthread_join(s->thread, NULL);
    close(s->fd);
    for (int i = 0; i < s->n_clients; i++) {
        shutdown(s->clients[i].fd, SHUT_RDWR);
        pthread_join(s->clients[i].thread, NULL);
        close(s->clients[i].fd);
    }
    pthread_mutex_destroy(&s->asking);
    tlr_free(s);
}

void loopback_set(struct loopback *s, double latency_ms, double think_ms)
{
    s->latency_ms = latency_ms;
    s->think_ms = think_ms;
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

double median_of(float *v, size_t n)
{
    if (n == 0)
        return NAN;
    qsort(v, n, sizeof *v, compare_floats);
    return (double)v[n / 2];
}

double loopback_took_ms(struct loopback *s)
{
    pthread_mutex_lock(&s->asking);
    double ms = median_of(s->took_ms, s->n_took);
    pthread_mutex_unlock(&s->asking);
    return ms;
}

const char *loopback_url(const struct loopback *s)
{
    return s->url;
}

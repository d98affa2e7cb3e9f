/* serve_watch.c - see serve_watch.h. */
#include "net/serve_watch.h"

#include <pthread.h>
#include <sys/socket.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"

enum { LOOK_MS = 500 };

struct tlr_watched {
    int fd;
    uint64_t since_ns;
    bool is_received;
    struct tlr_watched *next, *before;
};

struct tlr_watch {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t end;
    bool is_ending;
    uint64_t receive_ns;
    struct tlr_watched *first;
    int n;
};

/* Under the lock. */
static void look(struct tlr_watch *w)
{
    uint64_t now = tlr_now_ns();
    for (struct tlr_watched *c = w->first; c; c = c->next)
        if (!c->is_received && now - c->since_ns > w->receive_ns)
            shutdown(c->fd, SHUT_RDWR); /* its owner closes it */
}

static void *run(void *arg)
{
    struct tlr_watch *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->is_ending) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += LOOK_MS * 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&w->end, &w->lock, &until);
        look(w);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

int tlr_watch_new(struct tlr_watch **out, int receive_s, struct tlr_err *err)
{
    struct tlr_watch *w = *out = tlr_calloc(1, sizeof *w);
    if (!w)
        return tlr_err_nomem(err, "server", sizeof *w);
    w->receive_ns = (uint64_t)receive_s * 1000000000u;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->end, NULL);
    int errnum = pthread_create(&w->thread, NULL, run, w);
    if (errnum == 0)
        return 0;
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->end);
    tlr_free(w);
    *out = NULL;
    return tlr_err_set_errno(err, TLR_EIO, errnum, "server: thread");
}

void tlr_watch_free(struct tlr_watch *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->is_ending = true;
    pthread_cond_signal(&w->end);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->end);
    tlr_free(w);
}

struct tlr_watched *tlr_watch_add(struct tlr_watch *w, int fd)
{
    struct tlr_watched *c = tlr_calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->fd = fd;
    c->since_ns = tlr_now_ns();
    pthread_mutex_lock(&w->lock);
    c->next = w->first;
    if (c->next)
        c->next->before = c;
    w->first = c;
    w->n++;
    pthread_mutex_unlock(&w->lock);
    return c;
}

void tlr_watch_remove(struct tlr_watch *w, struct tlr_watched *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&w->lock);
    if (c->before)
        c->before->next = c->next;
    else
        w->first = c->next;
    if (c->next)
        c->next->before = c->before;
    w->n--;
    pthread_mutex_unlock(&w->lock);
    tlr_free(c);
}

void tlr_watch_received(struct tlr_watch *w, struct tlr_watched *c,
                        bool received)
{
    if (!c)
        return;
    pthread_mutex_lock(&w->lock);
    c->is_received = received;
    c->since_ns = tlr_now_ns();
    pthread_mutex_unlock(&w->lock);
}

int tlr_watch_count(struct tlr_watch *w)
{
    pthread_mutex_lock(&w->lock);
    int n = w->n;
    pthread_mutex_unlock(&w->lock);
    return n;
}

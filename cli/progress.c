/* progress.c - how far a long job is, with rate and time left. */
#include <stdio.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/output.h"

enum { REDRAW_NS = 100 * 1000 * 1000, LINE_NS = 1000 * 1000 * 1000, BAR = 24 };

void cli_progress_begin(struct cli_progress *p, const char *label,
                        bool counts_bytes)
{
    uint64_t now = tlr_now_ns();
    *p = (struct cli_progress){ .label = label, .counts_bytes = counts_bytes,
                                .unit = "tok", .begun_ns = now, .drawn_ns = now };
}

/* "123.4 MiB/s, 0:42 left" */
static void rate_text(const struct cli_progress *p, uint64_t now, uint64_t done,
                      uint64_t total, char *out, size_t cap)
{
    double s = tlr_ms_between(p->begun_ns, now) / 1000;
    if (s <= 0 || done == 0) {
        out[0] = '\0';
        return;
    }
    double rate = (double)done / s;
    char amount[32];
    if (p->counts_bytes)
        cli_bytes(amount, sizeof amount, (uint64_t)rate);
    else
        snprintf(amount, sizeof amount, "%.*f %s", rate < 10, rate, p->unit);
    unsigned left = (unsigned)((double)(total - done) / rate + 0.5);
    snprintf(out, cap, "%s/s, %u:%02u left", amount, left / 60, left % 60);
}

static void draw_bar(const struct cli_progress *p, int percent,
                     const char *rate, const char *what)
{
    char bar[BAR + 1];
    for (int i = 0; i < BAR; i++)
        bar[i] = i * 100 < percent * BAR ? '#' : '.';
    bar[BAR] = '\0';
    fprintf(stderr, "\r%s [%s] %3d%%  %s  %.24s\x1b[K", p->label, bar, percent,
            rate, what ? what : "");
    fflush(stderr);
}

void cli_progress_set(struct cli_progress *p, uint64_t done, uint64_t total,
                      const char *what)
{
    if (total == 0)
        return;
    uint64_t now = tlr_now_ns();
    int percent = (int)((double)done * 100 / (double)total);
    char rate[80];
    if (cli_err_is_tty()) {
        if (p->is_drawn && done < total && now - p->drawn_ns < REDRAW_NS)
            return;
        rate_text(p, now, done, total, rate, sizeof rate);
        draw_bar(p, percent, rate, what);
        p->drawn_ns = now;
        p->is_drawn = true;
    } else if (percent / 10 > p->tenth && now - p->drawn_ns >= LINE_NS) {
        p->drawn_ns = now;
        p->tenth = percent / 10;
        rate_text(p, now, done, total, rate, sizeof rate);
        cli_note("%s: %d%%  %s", p->label, percent, rate);
    }
}

void cli_progress_end(struct cli_progress *p)
{
    if (p->is_drawn)
        fputs("\r\x1b[K", stderr);
    p->is_drawn = false;
}

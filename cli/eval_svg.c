/* eval_svg.c - quality against the routed share.
 *
 * One line for each policy with its 95 % intervals; the small and the large model
 * alone are horizontal lines.  Colours are those of the viewer's scheme, light or
 * dark; a point's tooltip has its numbers.
 */
#include <math.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/eval_report.h"
#include "cli/svg.h"

enum { WIDTH = 860, HEIGHT = 540, LEFT = 70, RIGHT = 170, TOP = 48, BOTTOM = 60 };

struct chart {
    struct cli_svg svg;
    const struct cli_eval_report *r;
    double x1, y0, y1; /* x from 0; shares, not percent */
};

#define put(chart, ...) cli_svg_put(&(chart)->svg, __VA_ARGS__)

static double at_x(const struct chart *c, double v)
{
    return LEFT + v / c->x1 * (WIDTH - LEFT - RIGHT);
}

static double at_y(const struct chart *c, double v)
{
    return HEIGHT - BOTTOM - (v - c->y0) / (c->y1 - c->y0) *
                                 (HEIGHT - TOP - BOTTOM);
}

static bool is_end(const struct tlr_eval_point *p)
{
    return p->run.kind == TLR_POLICY_NEVER || p->run.kind == TLR_POLICY_ALWAYS;
}

/* Whole twentieths around all there is. */
static void set_range(struct chart *c)
{
    double x = 0.05, low = 1, high = 0;
    for (size_t i = 0; i < c->r->n_points; i++) {
        const struct tlr_eval_point *p = &c->r->points[i];
        x = is_end(p) ? x : fmax(x, p->routed_share);
        low = fmin(low, is_end(p) ? p->accuracy : p->low);
        high = fmax(high, is_end(p) ? p->accuracy : p->high);
    }
    c->x1 = ceil(x * 20 - 1e-9) / 20;
    c->y0 = fmax(0, floor(low * 20) / 20);
    c->y1 = fmin(1, ceil(high * 20) / 20);
    if (c->y1 <= c->y0)
        c->y1 = c->y0 + 0.05;
}

static void begin(struct chart *c)
{
    put(c, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" "
           "height=\"%d\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" "
           "font-size=\"12\">\n",
        WIDTH, HEIGHT, WIDTH, HEIGHT);
    put(c, "<style>.back{fill:#fff}text{fill:#222}.grid{stroke:#ddd}"
           ".end{stroke:#555;stroke-dasharray:6 4}"
           "@media(prefers-color-scheme:dark){.back{fill:#16181c}"
           "text{fill:#ddd}.grid{stroke:#333}.end{stroke:#aaa}}</style>\n"
           "<rect class=\"back\" width=\"100%%\" height=\"100%%\"/>\n");
}

static void axes(struct chart *c)
{
    double step = c->x1 > 0.4 ? 0.1 : 0.05;
    for (int i = 0; i * step <= c->x1 + 1e-9; i++) {
        double x = at_x(c, i * step);
        put(c, "<line class=\"grid\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" "
               "y2=\"%d\"/>\n<text x=\"%.1f\" y=\"%d\" "
               "text-anchor=\"middle\">%.0f %%</text>\n",
            x, TOP, x, HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 18, i * step * 100);
    }
    for (double v = c->y0; v <= c->y1 + 1e-9; v += 0.05) {
        double y = at_y(c, v);
        put(c, "<line class=\"grid\" x1=\"%d\" y1=\"%.1f\" x2=\"%d\" "
               "y2=\"%.1f\"/>\n<text x=\"%d\" y=\"%.1f\" "
               "text-anchor=\"end\">%.0f %%</text>\n",
            LEFT, y, WIDTH - RIGHT, y, LEFT - 8, y + 4, v * 100);
    }
    put(c, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">tokens written by the "
           "large model</text>\n",
        (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16);
    put(c, "<text x=\"20\" y=\"%d\" text-anchor=\"middle\" "
           "transform=\"rotate(-90 20 %d)\">%s</text>\n",
        HEIGHT / 2, HEIGHT / 2,
        c->r->task == TLR_TASK_LM ? "tokens predicted" : "answers right");
    put(c, "<text x=\"%d\" y=\"26\" font-size=\"14\">%s, %llu items: quality "
           "against routed share, 95 %% intervals</text>\n",
        LEFT, tlr_task_name(c->r->task),
        (unsigned long long)c->r->points[0].n);
}

/* Readable on white and on black. */
static const char *color_of(enum tlr_policy_kind kind)
{
    static const char *const colors[TLR_N_POLICIES] = {
        "#d62728", "#e377c2", "#9467bd", "#2b8cc4", "#2ca02c",
        "#d08a00", "#8c6d46", "#888888", "#888888", "#888888"};
    return colors[kind];
}

static void point(struct chart *c, const struct tlr_eval_point *p)
{
    double x = at_x(c, p->routed_share);
    const char *name = tlr_policy_name(p->run.kind);
    const char *color = color_of(p->run.kind);
    put(c, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" "
           "stroke=\"%s\" stroke-opacity=\"0.35\"/>\n",
        x, at_y(c, p->low), x, at_y(c, p->high), color);
    put(c, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"><title>%s: %.1f "
           "%% routed, %.1f %% right (%.1f to %.1f)</title></circle>\n",
        x, at_y(c, p->accuracy), color, name, p->routed_share * 100,
        p->accuracy * 100, p->low * 100, p->high * 100);
}

/* The policy's points in the order of the table, which is that of shares. */
static void line(struct chart *c, enum tlr_policy_kind kind, int *n_lines)
{
    int n = 0;
    for (size_t i = 0; i < c->r->n_points; i++) {
        const struct tlr_eval_point *p = &c->r->points[i];
        if (p->run.kind != kind)
            continue;
        if (n++ == 0)
            put(c, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" "
                   "points=\"", color_of(kind));
        put(c, "%.1f,%.1f ", at_x(c, p->routed_share), at_y(c, p->accuracy));
    }
    if (n == 0)
        return;
    put(c, "\"/>\n");
    for (size_t i = 0; i < c->r->n_points; i++)
        if (c->r->points[i].run.kind == kind)
            point(c, &c->r->points[i]);
    int y = TOP + 20 + *n_lines * 20;
    ++*n_lines;
    put(c, "<circle cx=\"%d\" cy=\"%d\" r=\"5\" fill=\"%s\"/>\n<text x=\"%d\" "
           "y=\"%d\">%s</text>\n",
        WIDTH - RIGHT + 16, y, color_of(kind), WIDTH - RIGHT + 28, y + 4,
        tlr_policy_name(kind));
}

static void end_line(struct chart *c, const struct tlr_eval_point *p)
{
    double y = at_y(c, p->accuracy);
    put(c, "<line class=\"end\" x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\"/>\n"
           "<text x=\"%d\" y=\"%.1f\">%s alone, %.1f %%</text>\n",
        LEFT, y, WIDTH - RIGHT, y, WIDTH - RIGHT + 6, y + 4,
        p->run.kind == TLR_POLICY_NEVER ? "small" : "large", p->accuracy * 100);
}

int cli_eval_svg(const char *path, const struct cli_eval_report *r,
                 struct tlr_err *err)
{
    struct chart c = {.r = r};
    int rc = cli_svg_begin(&c.svg, path, err), n_lines = 0;
    if (rc)
        return rc;
    set_range(&c);
    begin(&c);
    axes(&c);
    for (size_t i = 0; i < r->n_points; i++)
        if (is_end(&r->points[i]))
            end_line(&c, &r->points[i]);
    for (int k = 0; k < TLR_N_POLICIES; k++)
        if (k != TLR_POLICY_NEVER && k != TLR_POLICY_ALWAYS)
            line(&c, (enum tlr_policy_kind)k, &n_lines);
    return cli_svg_end(&c.svg);
}

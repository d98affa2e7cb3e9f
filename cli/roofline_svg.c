/* roofline_svg.c - the roofline plot (Williams, Waterman & Patterson 2009).
 *
 * Both axes are logarithmic: operations for each byte moved, and operations a
 * second.  Lines: memory's bandwidth and the two compute peaks, as measured.
 * Squares are cold, circles hot; filled is the variant that the machine uses.
 * A point's tooltip says what it is, so the picture needs no labels.
 */
#include <math.h>

#include "cli/bench_kernels.h"
#include "cli/svg.h"

enum { WIDTH = 960, HEIGHT = 620, LEFT = 80, RIGHT = 150, TOP = 40, BOTTOM = 60 };

struct plot {
    struct cli_svg svg;
    double x0, x1, y0, y1; /* log10 */
};

#define put(plot, ...) cli_svg_put(&(plot)->svg, __VA_ARGS__)

static double at_x(const struct plot *p, double v)
{
    return LEFT + (log10(v) - p->x0) / (p->x1 - p->x0) * (WIDTH - LEFT - RIGHT);
}

static double at_y(const struct plot *p, double v)
{
    return HEIGHT - BOTTOM -
           (log10(v) - p->y0) / (p->y1 - p->y0) * (HEIGHT - TOP - BOTTOM);
}

static void set_range(struct plot *p, const struct tlr_roofline *roof,
                      const struct tlr_kernel_row *rows, size_t n)
{
    double peak = roof->int_gop_s > roof->float_gflop_s ? roof->int_gop_s
                                                        : roof->float_gflop_s;
    p->x0 = 0;
    p->x1 = 1;
    p->y0 = 0;
    p->y1 = ceil(log10(peak > 1 ? peak * 1.2 : 1));
    for (size_t i = 0; i < n; i++) {
        double x = log10(rows[i].n_ops / rows[i].n_bytes);
        double y = log10(rows[i].n_ops / rows[i].ns);
        p->x0 = fmin(p->x0, floor(x));
        p->x1 = fmax(p->x1, ceil(x));
        p->y0 = fmin(p->y0, floor(y));
        p->y1 = fmax(p->y1, ceil(y));
    }
}

static void axes(struct plot *p)
{
    put(p, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" "
           "height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n"
           "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
        WIDTH, HEIGHT);
    for (double e = p->x0; e <= p->x1; e++) {
        double x = at_x(p, pow(10, e));
        put(p, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" "
               "stroke=\"#ddd\"/>\n", x, TOP, x, HEIGHT - BOTTOM);
        put(p, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%g</text>\n", x,
            HEIGHT - BOTTOM + 18, pow(10, e));
    }
    for (double e = p->y0; e <= p->y1; e++) {
        double y = at_y(p, pow(10, e));
        put(p, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" "
               "stroke=\"#ddd\"/>\n", LEFT, y, WIDTH - RIGHT, y);
        put(p, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n",
            LEFT - 8, y + 4, pow(10, e));
    }
    put(p, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">operations for each "
           "byte moved</text>\n", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16);
    put(p, "<text x=\"20\" y=\"%d\" text-anchor=\"middle\" "
           "transform=\"rotate(-90 20 %d)\">1e9 operations a second</text>\n",
        HEIGHT / 2, HEIGHT / 2);
}

/* The slope up to the ridge, then the flat roof to the right edge. */
static void roof_line(struct plot *p, double gb_s, double peak,
                      const char *name, const char *color)
{
    double left = pow(10, p->x0), right = pow(10, p->x1);
    if (gb_s <= 0 || peak <= 0)
        return;
    double low = pow(10, p->y0), ridge = peak / gb_s;
    double from = fmax(left, low / gb_s);
    ridge = fmin(fmax(ridge, from), right);
    put(p, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\""
           "%.1f,%.1f %.1f,%.1f %.1f,%.1f\"/>\n", color, at_x(p, from),
        at_y(p, fmin(from * gb_s, peak)), at_x(p, ridge),
        at_y(p, fmin(ridge * gb_s, peak)), at_x(p, right),
        at_y(p, fmin(right * gb_s, peak)));
    put(p, "<text x=\"%d\" y=\"%.1f\" fill=\"%s\">%s, %.0f</text>\n",
        WIDTH - RIGHT + 6, at_y(p, fmin(right * gb_s, peak)) + 4, color, name,
        peak);
}

static const char *color_of(enum tlr_cpu_level level)
{
    static const char *const colors[] = { "#888888", "#1f77b4", "#17becf",
                                          "#2ca02c", "#d62728", "#9467bd",
                                          "#8c564b", "#ff7f0e" };
    return colors[(size_t)level % (sizeof colors / sizeof *colors)];
}

static void point(struct plot *p, const struct tlr_kernel_row *r)
{
    const char *color = color_of(r->variant->level);
    const char *fill = r->is_chosen ? color : "none";
    double x = at_x(p, r->n_ops / r->n_bytes), y = at_y(p, r->n_ops / r->ns);
    if (r->is_cold)
        put(p, "<rect x=\"%.1f\" y=\"%.1f\" width=\"8\" height=\"8\"", x - 4,
            y - 4);
    else
        put(p, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\"", x, y);
    put(p, " fill=\"%s\" stroke=\"%s\"><title>%s %s, %s, %s: %.0f ns, %.2f "
           "GB/s, %.1f e9 operations/s, %.0f %% of the roof</title></%s>\n",
        fill, color, r->variant->slot, r->variant->isa, r->shape,
        r->is_cold ? "cold" : "hot", r->ns, r->n_bytes / r->ns,
        r->n_ops / r->ns, r->roof_ns / r->ns * 100,
        r->is_cold ? "rect" : "circle");
}

static void legend(struct plot *p, const struct tlr_roofline *roof)
{
    int n = 0;
    put(p, "<text x=\"%d\" y=\"24\">one thread, memory reads %.1f GB/s; squares "
           "cold, circles hot, filled: used on this machine</text>\n", LEFT,
        roof->read_gb_s);
    for (int i = 0; i < TLR_N_CPU_LEVELS; i++) {
        if (!tlr_cpu_has((enum tlr_cpu_level)i))
            continue;
        put(p, "<circle cx=\"%d\" cy=\"%d\" r=\"5\" fill=\"%s\"/>\n",
            WIDTH - RIGHT + 14, HEIGHT - BOTTOM - 120 + n * 20,
            color_of((enum tlr_cpu_level)i));
        put(p, "<text x=\"%d\" y=\"%d\">%s</text>\n", WIDTH - RIGHT + 26,
            HEIGHT - BOTTOM - 116 + n * 20,
            tlr_cpu_level_name((enum tlr_cpu_level)i));
        n++;
    }
}

int cli_roofline_svg(const char *path, const struct tlr_roofline *roof,
                     const struct tlr_kernel_row *rows, size_t n_rows,
                     struct tlr_err *err)
{
    struct plot p = { .x0 = 0 };
    int rc = cli_svg_begin(&p.svg, path, err);
    if (rc)
        return rc;
    set_range(&p, roof, rows, n_rows);
    axes(&p);
    roof_line(&p, roof->read_gb_s, roof->float_gflop_s, "f32", "#444");
    roof_line(&p, roof->read_gb_s, roof->int_gop_s, "int8", "#000");
    for (size_t i = 0; i < n_rows; i++)
        point(&p, &rows[i]);
    legend(&p, roof);
    return cli_svg_end(&p.svg);
}

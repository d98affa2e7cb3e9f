/* nfc.c - Unicode normalisation form C (UAX 15), as the tokenizer needs it.
 *
 * Most text is in NFC already: only stretches with a character that could
 * change or join its neighbour are taken apart.  utf8proc decomposes and
 * composes; the ordering in between is done here, because utf8proc's is
 * quadratic on a long run of marks.  Hugging Face's tokenizers normalises by
 * Unicode 9, where later marks are not yet marks: they are left alone.
 */
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "engine/unicode.h"

/* Marks with a combining class that came after Unicode 9, the one pair that
 * came after it (Dives Akuru), and the blocks of Unicode 16 that brought such. */
static const struct {
    uint32_t first, last;
} left_alone[] = {
    {0x7fd, 0x7fd},     {0x897, 0x89f},     {0x8ca, 0x8d3},
    {0x9fe, 0x9fe},     {0xc3c, 0xc3c},     {0xd3b, 0xd3c},
    {0xeba, 0xeba},     {0x1715, 0x1715},   {0x1abf, 0x1aff},
    {0x1df6, 0x1dfa},   {0xa82c, 0xa82c},   {0x105c0, 0x105ff},
    {0x10d24, 0x10d27}, {0x10d69, 0x10d6d}, {0x10eab, 0x10eac},
    {0x10ef0, 0x10eff}, {0x10f46, 0x10f50}, {0x10f82, 0x10f85},
    {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x11380, 0x113ff},
    {0x1145e, 0x1145e}, {0x11839, 0x1183a}, {0x11930, 0x11930},
    {0x11938, 0x11938}, {0x1193d, 0x1193e}, {0x11943, 0x11943},
    {0x119e0, 0x119e0}, {0x11a34, 0x11a34}, {0x11a47, 0x11a47},
    {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45},
    {0x11d97, 0x11d97}, {0x11f41, 0x11f42}, {0x16100, 0x1613f},
    {0x16d40, 0x16d7f}, {0x16ff0, 0x16ff1}, {0x1e08f, 0x1e08f},
    {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef},
    {0x1e4ec, 0x1e4ef}, {0x1e5ee, 0x1e5ef},
};

static bool is_left_alone(uint32_t cp)
{
    if (cp < left_alone[0].first) {
        return false;
    }
    size_t low = 0, high = sizeof left_alone / sizeof *left_alone;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (cp < left_alone[mid].first) {
            high = mid;
        } else if (cp > left_alone[mid].last) {
            low = mid + 1;
        } else {
            return true;
        }
    }
    return false;
}

static bool is_jamo_tail(uint32_t cp)
{
    return cp >= 0x1161 && cp <= 0x11c2; /* vowels and finals join a syllable */
}

/* No change by NFC, and no joining of what stands before it.  (May be false
 * for a character of which that is true: it costs time only.) */
static bool is_inert(uint32_t cp)
{
    if (cp < 0x300 || (cp >= 0x3400 && cp <= 0x9fff) ||
        (cp >= 0xac00 && cp <= 0xd7a3) || (cp >= 0x388 && cp <= 0x482) ||
        (cp >= 0x48a && cp <= 0x52f) || (cp >= 0x1e00 && cp <= 0x1eff) ||
        (cp >= 0x3041 && cp <= 0x3096) || (cp >= 0x309b && cp <= 0x30ff)) {
        return true;
    }
    if (is_left_alone(cp)) {
        return true;
    }
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)cp);
    bool is_mark = p->category == UTF8PROC_CATEGORY_MN ||
                   p->category == UTF8PROC_CATEGORY_MC ||
                   p->category == UTF8PROC_CATEGORY_ME;
    bool decomposes = p->decomp_seqindex != UINT16_MAX && p->decomp_type == 0;
    return !is_mark && !decomposes && p->combining_class == 0 &&
           !is_jamo_tail(cp);
}

void tlr_nfc_clear(struct tlr_nfc *w)
{
    tlr_free(w->out);
    tlr_free(w->cps);
    memset(w, 0, sizeof *w);
}

static int room_for_bytes(struct tlr_nfc *w, size_t more, struct tlr_err *err)
{
    if (more <= w->cap - w->n) {
        return 0;
    }
    uint64_t want;
    if (!tlr_add_u64(w->n, more, &want) || want > SIZE_MAX / 2) {
        return tlr_err_nomem(err, "text", more);
    }
    size_t cap = (size_t)want + (size_t)want / 2 + 64;
    uint8_t *out = tlr_realloc(w->out, cap, 1);
    if (!out) {
        return tlr_err_nomem(err, "text", cap);
    }
    w->out = out;
    w->cap = cap;
    return 0;
}

static int append_bytes(struct tlr_nfc *w, const uint8_t *p, size_t n,
                        struct tlr_err *err)
{
    int rc = room_for_bytes(w, n, err);
    if (rc == 0 && n > 0) {
        memcpy(w->out + w->n, p, n);
        w->n += n;
    }
    return rc;
}

/* Canonical decomposition, not yet ordered, at the end of w->cps. */
static int decompose(struct tlr_nfc *w, uint32_t cp, struct tlr_err *err)
{
    enum { MOST = 18 }; /* Unicode's longest decomposition of one character */
    if (w->cap_cps - w->n_cps < MOST) {
        size_t cap = w->cap_cps * 2 + 256;
        int32_t *cps = tlr_realloc(w->cps, cap, sizeof *cps);
        if (!cps) {
            return tlr_err_nomem(err, "text", cap * sizeof *cps);
        }
        w->cps = cps;
        w->cap_cps = cap;
    }
    int32_t *dst = w->cps + w->n_cps;
    utf8proc_ssize_t n =
        utf8proc_decompose_char((utf8proc_int32_t)cp, dst, MOST,
                                UTF8PROC_DECOMPOSE, NULL);
    if (n < 1 || n > MOST) {
        dst[0] = (int32_t)cp;
        n = 1;
    }
    w->n_cps += (size_t)n;
    return 0;
}

static unsigned combining_class(int32_t cp)
{
    return (unsigned)utf8proc_get_property(cp)->combining_class;
}

/* Stable sort of cps[0..n) by class: by insertion when short, else by counting
 * into spare[0..n). */
static void sort_marks(int32_t *cps, size_t n, int32_t *spare)
{
    if (n <= 16) {
        for (size_t i = 1; i < n; i++) {
            int32_t cp = cps[i];
            unsigned class = combining_class(cp);
            size_t j = i;
            for (; j > 0 && combining_class(cps[j - 1]) > class; j--) {
                cps[j] = cps[j - 1];
            }
            cps[j] = cp;
        }
        return;
    }
    size_t start[257] = {0};
    for (size_t i = 0; i < n; i++) {
        start[(combining_class(cps[i]) & 0xff) + 1]++;
    }
    for (int c = 0; c < 256; c++) {
        start[c + 1] += start[c];
    }
    for (size_t i = 0; i < n; i++) {
        spare[start[combining_class(cps[i]) & 0xff]++] = cps[i];
    }
    memcpy(cps, spare, n * sizeof *cps);
}

static int sort_all_marks(struct tlr_nfc *w, struct tlr_err *err)
{
    int32_t *spare = NULL;
    for (size_t i = 0; i < w->n_cps;) {
        size_t end = i;
        while (end < w->n_cps && combining_class(w->cps[end]) != 0) {
            end++;
        }
        if (end - i > 16 && !spare) {
            spare = tlr_calloc(w->n_cps, sizeof *spare);
            if (!spare) {
                return tlr_err_nomem(err, "text", w->n_cps * sizeof *spare);
            }
        }
        sort_marks(w->cps + i, end - i, spare);
        i = end + 1;
    }
    tlr_free(spare);
    return 0;
}

/* Appends text[0..len) normalised, all of it. */
static int normalize_stretch(struct tlr_nfc *w, const uint8_t *text, size_t len,
                             struct tlr_err *err)
{
    int rc;
    w->n_cps = 0;
    for (size_t i = 0; i < len;) {
        if ((rc = decompose(w, tlr_utf8_next(text, &i), err))) {
            return rc;
        }
    }
    if ((rc = sort_all_marks(w, err))) {
        return rc;
    }
    utf8proc_ssize_t n = utf8proc_normalize_utf32(
        w->cps, (utf8proc_ssize_t)w->n_cps,
        UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    if ((rc = room_for_bytes(w, (size_t)n * 4, err))) {
        return rc;
    }
    for (utf8proc_ssize_t i = 0; i < n; i++) {
        w->n += (size_t)utf8proc_encode_char(w->cps[i], w->out + w->n);
    }
    return 0;
}

static bool are_ascii(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return (word & 0x8080808080808080u) == 0;
}

int tlr_nfc_normalize(struct tlr_nfc *w, const uint8_t *text, size_t len,
                      struct tlr_bytes *out, struct tlr_err *err)
{
    size_t done = 0; /* text before it is in w->out, if anything is */
    size_t i = 0;
    int rc;
    w->n = 0;
    while (i < len) {
        if (len - i >= 8 && are_ascii(text + i)) {
            i += 8;
            continue;
        }
        size_t end = i;
        if (is_inert(tlr_utf8_next(text, &end))) {
            i = end;
            continue;
        }
        /* The character before may be the base of this one. */
        size_t start = i;
        if (i > done) {
            size_t base = tlr_utf8_prev(text, i), pos = base;
            start = is_left_alone(tlr_utf8_next(text, &pos)) ? i : base;
        }
        while (end < len) {
            size_t next = end;
            if (is_inert(tlr_utf8_next(text, &next))) {
                break;
            }
            end = next;
        }
        if ((rc = append_bytes(w, text + done, start - done, err)) ||
            (rc = normalize_stretch(w, text + start, end - start, err))) {
            return rc;
        }
        done = i = end;
    }
    if (done == 0) {
        *out = (struct tlr_bytes){text, len};
        return 0;
    }
    rc = append_bytes(w, text + done, len - done, err);
    *out = (struct tlr_bytes){w->out, w->n};
    return rc;
}

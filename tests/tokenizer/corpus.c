/* corpus.c - see corpus.h; every rule stands in golden/tokenizer/corpus.py. */
#include "tests/tokenizer/corpus.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/hash.h"
#include "tests/tokenizer/load.h"

static const uint32_t ranges[][2] = {
    {0x20, 95}, {0xA0, 96}, {0x100, 0x150}, {0x250, 0x60}, {0x300, 0x70},
    {0x370, 0x90}, {0x400, 0x130}, {0x530, 0x60}, {0x590, 0x70},
    {0x600, 0x100}, {0x700, 0x200}, {0x900, 0x80}, {0x980, 0x380},
    {0xD00, 0x100}, {0xE00, 0x100}, {0xF00, 0x100}, {0x1000, 0x100},
    {0x10A0, 0x60}, {0x1100, 0x100}, {0x1200, 0x500}, {0x1780, 0x80},
    {0x1800, 0x500}, {0x1E00, 0x100}, {0x1F00, 0x100}, {0x2000, 0x70},
    {0x2070, 0x200}, {0x2270, 0x990}, {0x2C00, 0x200}, {0x3000, 0x100},
    {0x3100, 0x300}, {0x4E00, 0x5200}, {0xA000, 0x700}, {0xA700, 0x500},
    {0xAC00, 0x2BA4}, {0xE000, 0x100}, {0xF900, 0x200}, {0xFB00, 0x400},
    {0xFF00, 0x100}, {0x10000, 0x2000}, {0x12000, 0x2500}, {0x16000, 0x1000},
    {0x1D000, 0x800}, {0x1E000, 0x1000}, {0x1F000, 0xC00}, {0x20000, 0x11400},
    {0xE0000, 0x200}, {0, 0xD800}, {0xE000, 0x102000}, {0x30, 10}, {0x61, 26},
};
enum { N_RANGES = sizeof ranges / sizeof *ranges };

static const char *const spaces[] = {
    "\n", " ", "\t", "\r\n", "\r", "\xc2\xa0", "\xe3\x80\x80", "\xe2\x80\xa8",
    "\xc2\x85", "\xe2\x80\x8b", "\xe1\xa0\x8e", " \n", "\n ", "\v", "\f"};
enum { N_SPACES = sizeof spaces / sizeof *spaces };

/* "\n" and "\t" in a line of atoms.txt stand for the characters. */
static char *unescape(const char *line, size_t len)
{
    char *out = malloc(len + 1);
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        bool is_escape = line[i] == '\\' && i + 1 < len &&
                         (line[i + 1] == 'n' || line[i + 1] == 't');
        out[n++] = is_escape ? (line[++i] == 'n' ? '\n' : '\t') : line[i];
    }
    out[n] = 0;
    return out;
}

void corpus_load(struct corpus *c)
{
    size_t len;
    char *text = read_golden("tests/golden/tokenizer/atoms.txt", &len);
    c->atoms = calloc(len, sizeof *c->atoms);
    c->n_atoms = 0;
    for (char *line = text; line < text + len;) {
        size_t n = strcspn(line, "\n");
        if (n > 0) {
            c->atoms[c->n_atoms++] = unescape(line, n);
        }
        line += n + 1;
    }
    free(text);
}

void corpus_clear(struct corpus *c)
{
    for (size_t i = 0; i < c->n_atoms; i++) {
        free(c->atoms[i]);
    }
    free(c->atoms);
}

static size_t put_char(char *out, uint32_t cp)
{
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)cp,
                                        (utf8proc_uint8_t *)out);
}

char *corpus_segment(const struct corpus *c, uint64_t seed, uint64_t k,
                     int n_atoms, size_t *len)
{
    uint64_t s = tlr_hash_u64(seed, k);
    const uint32_t *theme = ranges[tlr_hash_u64(s, 0) % N_RANGES];
    char *out = NULL;
    size_t n = 0, cap = 0;
    for (int i = 0; i < n_atoms; i++) {
        uint64_t a = tlr_hash_u64(s, 2 * (uint64_t)i + 1);
        uint64_t b = tlr_hash_u64(s, 2 * (uint64_t)i + 2);
        unsigned kind = a % 16;
        if (cap - n < 1024) { /* more than any atom has */
            cap += 16384;
            out = realloc(out, cap);
        }
        if (kind < 7) {
            n += put_char(out + n, theme[0] + (uint32_t)(b % theme[1]));
        } else if (kind < 9) {
            const uint32_t *r = ranges[(a >> 8) % N_RANGES];
            n += put_char(out + n, r[0] + (uint32_t)(b % r[1]));
        } else {
            const char *text = kind < 10   ? spaces[b % N_SPACES]
                               : kind < 12 ? " "
                                           : c->atoms[b % c->n_atoms];
            uint64_t times = kind < 10 ? 1 + (a >> 8) % 4 : 1;
            for (; times > 0; times--) {
                memcpy(out + n, text, strlen(text));
                n += strlen(text);
            }
        }
    }
    *len = n;
    return out;
}

uint64_t ids_hash(const int32_t *ids, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) {
        for (int shift = 0; shift < 32; shift += 8) {
            h = (h ^ ((uint32_t)ids[i] >> shift & 0xff)) * 0x100000001b3u;
        }
    }
    return h;
}

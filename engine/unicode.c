/* unicode.c - classes of characters and UTF-8.
 *
 * Hugging Face's tokenizers 0.23 is the measure, and it carries three Unicode
 * versions: Oniguruma's classes are of Unicode 16, the digit splitter's of 17,
 * NFC's of 9 (nfc.c).  The categories come from utf8proc; what 16 made letters
 * and numbers is added below, so that any utf8proc from 15.0 gives the same
 * ids.  An older one leaves some letters of rare scripts unknown; one of
 * Unicode 17 or later knows letters that tokenizers does not.
 */
#include "engine/unicode.h"

#include <utf8proc.h>

struct range {
    uint32_t first, last;
};

/* White space 3, digits 2, letters 1. */
const uint8_t tlr_ascii_class[128] = {
    ['\t'] = 3, ['\n'] = 3, ['\v'] = 3, ['\f'] = 3, ['\r'] = 3, [' '] = 3,
    ['0'] = 2, ['1'] = 2, ['2'] = 2, ['3'] = 2, ['4'] = 2,
    ['5'] = 2, ['6'] = 2, ['7'] = 2, ['8'] = 2, ['9'] = 2,
    ['A'] = 1, ['B'] = 1, ['C'] = 1, ['D'] = 1, ['E'] = 1, ['F'] = 1,
    ['G'] = 1, ['H'] = 1, ['I'] = 1, ['J'] = 1, ['K'] = 1, ['L'] = 1,
    ['M'] = 1, ['N'] = 1, ['O'] = 1, ['P'] = 1, ['Q'] = 1, ['R'] = 1,
    ['S'] = 1, ['T'] = 1, ['U'] = 1, ['V'] = 1, ['W'] = 1, ['X'] = 1,
    ['Y'] = 1, ['Z'] = 1,
    ['a'] = 1, ['b'] = 1, ['c'] = 1, ['d'] = 1, ['e'] = 1, ['f'] = 1,
    ['g'] = 1, ['h'] = 1, ['i'] = 1, ['j'] = 1, ['k'] = 1, ['l'] = 1,
    ['m'] = 1, ['n'] = 1, ['o'] = 1, ['p'] = 1, ['q'] = 1, ['r'] = 1,
    ['s'] = 1, ['t'] = 1, ['u'] = 1, ['v'] = 1, ['w'] = 1, ['x'] = 1,
    ['y'] = 1, ['z'] = 1,
};

/* Unassigned in Unicode 15.0, letters in 16.0. */
static const struct range letters_16[] = {
    {0x1c89, 0x1c8a},   {0xa7cb, 0xa7cd},   {0xa7da, 0xa7dc},
    {0x105c0, 0x105f3}, {0x10d4a, 0x10d65}, {0x10d6f, 0x10d85},
    {0x10ec2, 0x10ec4}, {0x11380, 0x11389}, {0x1138b, 0x1138b},
    {0x1138e, 0x1138e}, {0x11390, 0x113b5}, {0x113b7, 0x113b7},
    {0x113d1, 0x113d1}, {0x113d3, 0x113d3}, {0x11bc0, 0x11be0},
    {0x13460, 0x143fa}, {0x16100, 0x1611d}, {0x16d40, 0x16d6c},
    {0x18cff, 0x18cff}, {0x1e5d0, 0x1e5ed}, {0x1e5f0, 0x1e5f0},
    {0x2ebf0, 0x2ee5d},
};

static const struct range numbers_16[] = {
    {0x10d40, 0x10d49}, {0x116d0, 0x116e3}, {0x11bf0, 0x11bf9},
    {0x16130, 0x16139}, {0x16d70, 0x16d79}, {0x1ccf0, 0x1ccf9},
    {0x1e5f1, 0x1e5fa},
};

/* Numbers since Unicode 17.0. */
static const struct range numbers_17[] = {
    {0x11de0, 0x11de9},
    {0x16ff4, 0x16ff6},
};

#define IN(table, cp) in_ranges(table, sizeof(table) / sizeof *(table), cp)

static bool in_ranges(const struct range *r, size_t n, uint32_t cp)
{
    size_t low = 0;
    while (low < n) {
        size_t mid = low + (n - low) / 2;
        if (cp > r[mid].last) {
            low = mid + 1;
        } else {
            n = mid;
        }
        if (cp >= r[mid].first && cp <= r[mid].last) {
            return true;
        }
    }
    return false;
}

static enum tlr_char_class class_of_unassigned(uint32_t cp)
{
    if (IN(letters_16, cp)) {
        return TLR_CHAR_LETTER;
    }
    return IN(numbers_16, cp) ? TLR_CHAR_NUMBER : TLR_CHAR_OTHER;
}

enum tlr_char_class tlr_char_class_wide(uint32_t cp)
{
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return TLR_CHAR_LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return TLR_CHAR_NUMBER;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return TLR_CHAR_SPACE;
    case UTF8PROC_CATEGORY_CC:
        return cp == 0x85 ? TLR_CHAR_SPACE : TLR_CHAR_OTHER; /* NEL */
    case UTF8PROC_CATEGORY_CN:
        return class_of_unassigned(cp);
    default:
        return TLR_CHAR_OTHER;
    }
}

bool tlr_char_is_digit_split(uint32_t cp)
{
    return tlr_char_class(cp) == TLR_CHAR_NUMBER ||
           (cp >= 0x11de0 && IN(numbers_17, cp));
}

bool tlr_char_is_word(uint32_t cp)
{
    if (cp == 0x200c || cp == 0x200d || /* Join_Control */
        (cp >= 0x24b6 && cp <= 0x24e9) || /* Other_Alphabetic symbols */
        (cp >= 0x1f130 && cp <= 0x1f149) || (cp >= 0x1f150 && cp <= 0x1f169) ||
        (cp >= 0x1f170 && cp <= 0x1f189)) {
        return true;
    }
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return tlr_char_class(cp) == TLR_CHAR_LETTER;
    }
}

size_t tlr_utf8_char_len(const uint8_t *text, size_t len)
{
    uint8_t lead = text[0];
    size_t n = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    return n <= len && tlr_utf8_valid(text, n) ? n : 0;
}

size_t tlr_utf8_valid_len(const uint8_t *text, size_t len)
{
    if (tlr_utf8_valid(text, len)) {
        return len;
    }
    size_t i = 0;
    while (i < len) {
        size_t n = tlr_utf8_char_len(text + i, len - i);
        if (n == 0) {
            break;
        }
        i += n;
    }
    return i;
}

/* test_kv.c - what the cache keeps of a key and a value, and where: read back
 * by the drawing in kernels.h, not by the engine's own code. */
#include "engine/kvcache.h"

#include "tests/model/models.h"

enum { MAX_DIM = 128, POS = TLR_KV_BLOCK };

static const uint32_t dims[] = {16, 32, 64, 80, 128};
enum { N_DIMS = sizeof dims / sizeof dims[0] };

static struct tlr_kv new_kv(enum tlr_kv_type type, uint32_t head_dim)
{
    struct tlr_kv kv = {.n_layers = 1, .n_kv_heads = 1, .head_dim = head_dim,
                        .type = type};
    tlr_kv_layout(&kv, POS, 0, 1);
    return kv;
}

/* Groups of 32 dimensions of very different size, so that a scale in another's
 * place shows. */
static void fill(float x[POS][MAX_DIM], struct tlr_rng *rng)
{
    for (int p = 0; p < POS; p++) {
        for (int i = 0; i < MAX_DIM; i++) {
            x[p][i] = tlr_rng_normal(rng) * powf(10, (float)((i / 32 + p) % 4));
        }
    }
}

/* Dimension i of position p, and the step that rounding may have taken there. */
static double element(const struct tlr_kv *kv, const uint8_t *block, uint32_t p,
                      uint32_t i, bool is_key, double *step)
{
    uint32_t n_scales = (kv->head_dim + 31) / 32;
    size_t at = is_key ? (size_t)i * POS + p : (size_t)p * kv->head_dim + i;
    float f;
    uint16_t h;
    *step = 0;
    if (kv->type == TLR_KV_F32) {
        memcpy(&f, block + at * 4, 4);
        return (double)f;
    }
    if (kv->type == TLR_KV_F16) {
        memcpy(&h, block + at * 2, 2);
        return (double)tlr_f16_to_f32(h);
    }
    memcpy(&h, block + (i / 32 * POS + p) * 2, 2);
    *step = (double)tlr_f16_to_f32(h);
    return *step * (double)(int8_t)block[n_scales * POS * 2 + at];
}

/* The step of q8 is the largest of its 32 over 127, rounded to f16; a number may
 * miss by half a step, and one that no longer fits by the rest of it. */
static void check_element(const struct tlr_kv *kv, const uint8_t *block,
                          const float *x, uint32_t p, uint32_t i, bool is_key)
{
    double step, most = 0, want = (double)x[i];
    double got = element(kv, block, p, i, is_key, &step), bound = 0;
    for (uint32_t j = i / 32 * 32; j < i / 32 * 32 + 32 && j < kv->head_dim; j++)
        most = fmax(most, fabs((double)x[j]));
    if (kv->type == TLR_KV_F16) {
        bound = fabs(want) * 0x1p-11;
    } else if (kv->type == TLR_KV_Q8) {
        ck_assert_msg(fabs(step - most / 127) <= most / 127 * 0x1p-11,
                      "[%u] of %u: step %g, largest %g", i, p, step, most);
        bound = step * (0.5 + 127 * 0x1p-11);
    }
    ck_assert_msg(fabs(got - want) <= bound,
                  "dimension %u of %u, position %u, %s: %g, not %g", i,
                  kv->head_dim, p, is_key ? "key" : "value", got, want);
}

START_TEST(blocks_hold_what_was_stored)
{
    enum tlr_kv_type type = (enum tlr_kv_type)(TLR_KV_F32 + _i);
    struct tlr_rng rng = {.seed = tlr_test_seed()};
    struct tlr_kernels kernels;
    tlr_kernels_init(&kernels, tlr_test_cpu_level());
    for (int d = 0; d < N_DIMS; d++) {
        static float keys[POS][MAX_DIM], values[POS][MAX_DIM];
        static uint8_t k[POS * MAX_DIM * 4], v[POS * MAX_DIM * 4];
        struct tlr_kv kv = new_kv(type, dims[d]);
        ck_assert_uint_le(kv.block_bytes, sizeof k);
        fill(keys, &rng);
        fill(values, &rng);
        for (uint32_t p = 0; p < POS; p++) { /* not in order */
            uint32_t at = p * 7 % POS;
            tlr_kv_store_key(&kv, &kernels, k, at, keys[at]);
            tlr_kv_store_value(&kv, &kernels, v, at, values[at]);
        }
        for (uint32_t p = 0; p < POS; p++) {
            for (uint32_t i = 0; i < dims[d]; i++) {
                check_element(&kv, k, keys[p], p, i, true);
                check_element(&kv, v, values[p], p, i, false);
            }
        }
    }
}
END_TEST

/* All positions taken out of a block and put into another make it the same. */
START_TEST(positions_come_out_and_go_back)
{
    enum tlr_kv_type type = (enum tlr_kv_type)(TLR_KV_F32 + _i);
    struct tlr_rng rng = {.seed = tlr_test_seed() + 1};
    for (int d = 0; d < N_DIMS; d++) {
        for (int is_key = 0; is_key < 2; is_key++) {
            static uint8_t block[POS * MAX_DIM * 4], copy[POS * MAX_DIM * 4];
            uint8_t pos[MAX_DIM * 4];
            struct tlr_kv kv = new_kv(type, dims[d]);
            for (size_t i = 0; i < kv.block_bytes; i++)
                block[i] = (uint8_t)tlr_rng_u64(&rng);
            memset(copy, 0, sizeof copy);
            ck_assert_uint_eq(POS * tlr_kv_pos_bytes(&kv), kv.block_bytes);
            for (uint32_t p = 0; p < POS; p++) {
                tlr_kv_get(&kv, pos, block, p, is_key);
                tlr_kv_put(&kv, copy, p, pos, is_key);
            }
            ck_assert_mem_eq(copy, block, kv.block_bytes);
        }
    }
}
END_TEST

Suite *suite_kv(void);
Suite *suite_kv(void)
{
    Suite *s = suite_create("kv");
    TCase *tc = tcase_create("kv");
    tcase_add_loop_test(tc, blocks_hold_what_was_stored, 0, 3);
    tcase_add_loop_test(tc, positions_come_out_and_go_back, 0, 3);
    suite_add_tcase(s, tc);
    return s;
}

/* generate.h - the loop that run and chat share: a prompt in, text out.
 *
 * Owns the streaming (whole characters only), the stop strings and the clock;
 * knows nothing of options or JSON.  Tokens come from router/decode.h, which is
 * plain decoding where nothing is routed.
 */
#ifndef TLR_CLI_GENERATE_H
#define TLR_CLI_GENERATE_H

#include "cli/options.h"
#include "engine/sampler.h"
#include "engine/text.h"
#include "engine/tlr.h"
#include "router/decode.h"

enum cli_finish { CLI_FINISH_STOP, CLI_FINISH_LENGTH, CLI_FINISH_CANCELLED };
const char *cli_finish_name(enum cli_finish f);

/* Text as it grows; `sent` bytes of it have been handed on. */
struct cli_text {
    struct tlr_text text;
    bool *is_llm; /* [cap] of each byte: the large model wrote it */
    size_t cap, sent;
};

/* Every decision, the end-of-text token's included. */
struct cli_records {
    struct tlr_joint_token *tokens;
    size_t n, cap;
};

struct cli_generate {
    /* in */
    struct tlr_session *session;
    const struct tlr_model *model;
    struct tlr_sampler *sampler;
    const struct tlr_generation *generation;
    const struct tlr_joint_options *routing; /* NULL: the small model alone; its
                                                sampler and prompt are set here */
    bool keep_records;
    const int32_t *prompt;
    size_t n_prompt;
    size_t max_tokens;
    const struct cli_list *stops; /* may be NULL */
    bool stream;                  /* write the text to standard output */
    uint64_t begun_ns;            /* time to first token counts from here */
    bool from_start;              /* also from the start of the process */
    bool profile;                 /* count where the time goes */
    /* out */
    struct tlr_ids ids;   /* without the end-of-text token */
    struct cli_text text; /* up to the stop string */
    struct cli_records records; /* with keep_records */
    struct tlr_joint_totals totals;
    char llm_failure[256]; /* why the large model failed last; "" */
    enum cli_finish finish;
    int32_t pending;      /* last id, not yet in the session; -1: none */
    double ttft_ms, prefill_ms, decode_ms;
    double first_token_ms;        /* with from_start */
    struct tlr_profile prefill_profile, decode_profile;
    uint64_t *prefill_ns;         /* of the former; the session keeps the other */
    size_t n_decoded;     /* tokens after the first */
    bool is_cut;          /* a stop string ended the text */
};

/* Runs until an end-of-text token, a stop string, max_tokens, the end of the
 * context or an interrupt (the caller holds interrupts).  The caller has
 * checked that the prompt fits.  On failure what came so far is still there. */
int cli_generate(struct cli_generate *g, struct tlr_err *err);
void cli_generate_clear(struct cli_generate *g);

double cli_prefill_rate(const struct cli_generate *g);
double cli_decode_rate(const struct cli_generate *g);

/* TLR_ELIMIT with advice when n more tokens do not fit the session. */
int cli_check_fits(const struct tlr_session *s, const struct tlr_model *m,
                   size_t n, struct tlr_err *err);

/* The lines of --stats, on standard error. */
void cli_print_stats(const struct cli_generate *g, double load_ms,
                     const char *template_name, uint64_t seed);
const char *cli_kv_name(enum tlr_kv_type kv);
const char *cli_act_name(enum tlr_act act);

#endif

/* routing.h - from options to a policy with its threshold and to a large model;
 * what the verbs share that route.
 */
#ifndef TLR_CLI_ROUTING_H
#define TLR_CLI_ROUTING_H

#include "cli/cli.h"
#include "cli/llm.h"
#include "router/decode.h"
#include "router/router.h"

#define CLI_POLICY_WORD(id, name) name "|"
/* "auto" closes the list because each name ends with a bar. */
#define CLI_POLICY_CHOICE TLR_POLICIES(CLI_POLICY_WORD) "auto"

struct cli_routing_args {
    struct cli_llm_args llm;
    const char *policy, *mode, *router;
    double target, tau;
    const char *speculate, *burst;
    int64_t lanes;
    bool require_llm, serial;
};

#define CLI_ROUTER_OPTION(type, field)                                         \
    { .name = "router", .kind = CLI_FILE, .at = offsetof(type, field),         \
      .value = "FILE", .help = "a router that tlr train wrote",                \
      .unset = "the one attached to the model" }
#define CLI_ROUTING_OPTIONS(type, field)                                       \
    CLI_LLM_OPTIONS(type, field.llm, false,                                    \
                    "none: doubtful tokens are only marked"),                  \
    { .name = "policy", .kind = CLI_CHOICE,                                    \
      .at = offsetof(type, field.policy), .value = CLI_POLICY_CHOICE,          \
      .help = "what says how far a token is trusted; auto is the router's own "\
              "kind", .fallback = "auto" },                                    \
    { .name = "target-routed", .kind = CLI_SHARE,                              \
      .at = offsetof(type, field.target), .value = "SHARE",                    \
      .help = "share of tokens that the large model should write, such as 7%", \
      .unset = "7%, unless --tau is given" },                                  \
    { .name = "tau", .kind = CLI_REAL, .at = offsetof(type, field.tau),        \
      .value = "T", .help = "ask where the trust is below T", .min = -1e9,     \
      .max = 1e9, .unset = "what the router's calibration says for the share" },\
    { .name = "mode", .kind = CLI_CHOICE, .at = offsetof(type, field.mode),    \
      .value = "joint|small|large", .fallback = "joint",                       \
      .help = "who may write: both, the small model alone or the large one "   \
              "alone" },                                                       \
    CLI_ROUTER_OPTION(type, field.router),                                     \
    { .name = "speculate", .kind = CLI_TEXT,                                   \
      .at = offsetof(type, field.speculate), .value = "off|N|max",             \
      .help = "while a server thinks, go on from the small model's guess, and "\
              "ask it at most N times for each reply that is needed (1: asks " \
              "nothing ahead; max: 3); the text is the same",                  \
      .unset = "1.6" },                                                        \
    { .name = "lanes", .kind = CLI_INT, .at = offsetof(type, field.lanes),     \
      .value = "N",                                                            \
      .help = "timelines that it goes on in: beside that of its first guesses "\
              "those of its second, at the oldest open questions; each takes " \
              "a KV cache and pays with --speculate max",                      \
      .unset = "1; 4 with --speculate max, but where texts are served",        \
      .min = 1, .max = TLR_LANE_MAX },                                         \
    { .name = "burst", .kind = CLI_TEXT,                                       \
      .at = offsetof(type, field.burst), .value = "N|auto",                    \
      .help = "tokens that each question to the large model is for, 1 to 16, " \
              "all of which it writes; auto: up to 4, as long as it is unsure "\
              "itself and says so (one by text)", .unset = "1" },              \
    { .name = "serial", .kind = CLI_FLAG,                                      \
      .at = offsetof(type, field.serial),                                      \
      .help = "stand still for every reply; the same as --speculate off" },    \
    { .name = "require-llm", .kind = CLI_FLAG,                                 \
      .at = offsetof(type, field.require_llm),                                 \
      .help = "end with an error when the large model does not answer, "       \
              "instead of keeping the small model's token" }

#define CLI_COLOR_OPTION(type, field)                                          \
    { .name = "color", .kind = CLI_CHOICE, .at = offsetof(type, field),        \
      .value = "auto|always|never", .fallback = "auto",                        \
      .help = "the large model's tokens in colour; auto is on a terminal, "    \
              "unless NO_COLOR is set" }

struct cli_routing {
    struct tlr_joint_options options; /* what points into this struct is set */
    struct tlr_router *router;        /* NULL: none was found or needed */
    struct tlr_expert expert;
    struct cli_llm llm;
    double target;                    /* share asked for; NAN: tau was given */
};

/* Whether any of the options was given. */
bool cli_routing_is_on(const struct cli_routing_args *a);
/* Finds router, policy, tau and large model for the model m, opened from path
 * with session s.  Clear it also on failure. */
int cli_routing_open(struct cli_routing *out, const struct cli_routing_args *a,
                     const struct tlr_model *m, const struct tlr_session *s,
                     uint64_t seed, struct tlr_err *err);
/* --burst, as in decode.h. */
int cli_routing_burst(int *out, const struct cli_routing_args *a,
                      struct tlr_err *err);
void cli_routing_clear(struct cli_routing *r); /* a zeroed one is allowed */

/* The router in --router FILE, or for NULL the one that the model carries,
 * checked to be for this model. */
int cli_router_open(struct tlr_router **out, const char *path,
                    const struct tlr_model *m, struct tlr_err *err);

/* Checksum of a router's bytes, continuing from *crc: what runs are told apart
 * by. */
int cli_router_crc(uint32_t *crc, const struct tlr_router *r,
                   struct tlr_err *err);

#endif

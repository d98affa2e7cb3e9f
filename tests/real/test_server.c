/* test_real.c - a stock server: llama.cpp behind an OpenAI-style port with SmolLM2,
 * started here on loopback.  The text that tlr gets from it token by token is the
 * text that the server writes when it is asked directly.
 *
 * Needs a Python with llama-cpp-python[server]: TLR_TEST_PYTHON names it (else
 * python3).  Building that takes ten minutes, so no setting forbids to skip this.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "engine/tlr.h"
#include "net/json.h"
#include "net/net.h"
#include "router/decode.h"
#include "tests/support/tlr_check.h"

enum { N_TOK = 12, START_S = 120, ANSWER_S = 120 };

static const char prompt[] =
    "The capital of France is Paris. The capital of Germany is";

static const char *python(void)
{
    const char *named = getenv("TLR_TEST_PYTHON");
    return named ? named : "python3";
}

static bool has_server(void)
{
    char command[600];
    snprintf(command, sizeof command,
             "'%s' -c 'import llama_cpp.server.app, uvicorn' >/dev/null 2>&1",
             python());
    return system(command) == 0;
}

static int free_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t n = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&at, &n), 0);
    close(fd);
    return ntohs(at.sin_port);
}

static pid_t start(const char *model, int port)
{
    char number[8];
    snprintf(number, sizeof number, "%d", port);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stdout) ||
            !freopen("/dev/null", "w", stderr))
            _exit(126);
        execlp(python(), python(), "-m", "llama_cpp.server", "--model", model,
               "--host", "127.0.0.1", "--port", number, "--n_ctx", "512",
               "--n_threads", "1", "--verbose", "false", (char *)NULL);
        _exit(127);
    }
    return pid;
}

static int dial(int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct timeval most = {ANSWER_S, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&at, sizeof at) == 0)
        return fd;
    close(fd);
    return -1;
}

/* Asks without tlr: what the server writes after the prompt, in one go. */
static bool ask_directly(int port, char *out, size_t cap)
{
    char body[512], request[1024], reply[1 << 16];
    int n_body = snprintf(body, sizeof body,
                          "{\"prompt\":\"%s\",\"max_tokens\":%d,\"temperature\":0,"
                          "\"top_k\":1,\"repeat_penalty\":1}", prompt, N_TOK);
    int n = snprintf(request, sizeof request,
                     "POST /v1/completions HTTP/1.0\r\nHost: x\r\nContent-Type: "
                     "application/json\r\nContent-Length: %d\r\n\r\n%s",
                     n_body, body);
    int fd = dial(port);
    if (fd < 0 || send(fd, request, (size_t)n, 0) != n)
        return false;
    size_t got = 0;
    for (ssize_t k; (k = recv(fd, reply + got, sizeof reply - 1 - got, 0)) > 0;)
        got += (size_t)k;
    close(fd);
    reply[got] = '\0';
    const char *at = strstr(reply, "\r\n\r\n");
    json_t *root = at ? json_loads(at + 4, 0, NULL) : NULL;
    const char *text = tlr_net_string(
        json_array_get(json_object_get(root, "choices"), 0), "text", NULL);
    snprintf(out, cap, "%s", text ? text : "");
    json_decref(root);
    return text != NULL;
}

static bool wait_for(int port, pid_t pid)
{
    struct timespec step = {0, 200000000};
    for (int i = 0; i < START_S * 5; i++) {
        int fd = dial(port);
        if (fd >= 0) {
            close(fd);
            return true;
        }
        if (waitpid(pid, NULL, WNOHANG) == pid)
            return false;
        nanosleep(&step, NULL);
    }
    return false;
}

/* The large model alone, a token at a time. */
static void ask_through_tlr(const struct tlr_model *m, int port, char *out,
                            size_t cap)
{
    struct tlr_net_options o = TLR_NET_OPTIONS_INIT;
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_net *n = NULL;
    struct tlr_expert e;
    struct tlr_ids ids = {0};
    char url[64];
    size_t len = 0;
    snprintf(url, sizeof url, "http://127.0.0.1:%d", port);
    o.url = url;
    o.timeout_s = ANSWER_S;
    ck_assert_msg(!tlr_net_open(&n, &o, m, &err), "%s", err.text);
    ck_assert_msg(!tlr_net_connect(n, &err), "%s", err.text);
    ck_assert_int_eq(tlr_net_expert(n, &e, &err), 0);
    ck_assert_int_eq(tlr_encode(tlr_model_tokenizer(m), prompt,
                                sizeof prompt - 1, 0, &ids, &err), 0);
    for (int i = 0; i < N_TOK; i++) {
        struct tlr_expert_reply r;
        ck_assert_msg(!tlr_expert_ask(&e, ids.ids, ids.n, 1,
                                      tlr_model_n_ids(m), &r, &err),
                      "%s", err.text);
        if (tlr_generation_is_eos(tlr_model_generation(m), r.ids[0]))
            break;
        struct tlr_bytes b = tlr_token_bytes(tlr_model_tokenizer(m), r.ids[0]);
        ck_assert_uint_lt(len + b.len, cap);
        memcpy(out + len, b.ptr, b.len);
        len += b.len;
        ck_assert_int_eq(tlr_ids_push(&ids, r.ids[0], &err), 0);
    }
    out[len] = '\0';
    tlr_ids_clear(&ids);
    tlr_net_close(n);
}

START_TEST(llama_cpp)
{
    const char *gguf = tlr_test_model("smollm2-135m-instruct.gguf");
    const char *bin = tlr_test_model("smollm2-135m-instruct.bin");
    if (!gguf || !bin)
        TLR_SKIP("models/smollm2-135m-instruct is not fetched");
    if (!has_server())
        TLR_LACKS("no llama-cpp-python[server] for %s (TLR_TEST_PYTHON)",
                  python());
    struct tlr_model *m = NULL;
    struct tlr_err err = TLR_ERR_INIT;
    char direct[2048] = "", ours[2048] = "";
    ck_assert_msg(!tlr_model_open(&m, bin, &err), "%s", err.text);
    int port = free_port();
    pid_t pid = start(gguf, port);
    bool is_up = wait_for(port, pid);
    bool answers = is_up && ask_directly(port, direct, sizeof direct);
    if (answers) /* a failure here ends the test, and Check its process group */
        ask_through_tlr(m, port, ours, sizeof ours);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    tlr_model_close(m);
    ck_assert_msg(is_up, "the server did not begin to listen");
    ck_assert_msg(answers, "the server did not answer");
    ck_assert_uint_gt(strlen(direct), N_TOK);
    ck_assert_str_eq(ours, direct);
}
END_TEST

Suite *suite_real_server(void);
Suite *suite_real_server(void)
{
    Suite *s = suite_create("real_server");
    TCase *t = tcase_create("real_server");
    tcase_set_timeout(t, 900); /* a server that loads, on a busy machine */
    tcase_add_test(t, llama_cpp);
    suite_add_tcase(s, t);
    return s;
}

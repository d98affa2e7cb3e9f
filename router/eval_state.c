/* eval_state.c - outcomes on disk, a line for each item as it is finished.
 *
 *   {"tlr_eval":1, ...}                       the header, as the caller made it
 *   {"item":12,"runs":[[judged,right,strict,choice,tok,asked,known,agree,nll],
 *    ...]}                                    one array for each run, in order
 *
 * Lines are appended whole by one write each; a kill leaves at most a last line
 * without its newline, which the next run cuts off.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/json.h"
#include "router/eval.h"

enum { STATE_BYTES_MAX = 1 << 30, N_FIELDS = 9 };

struct tlr_eval_state {
    char *path;
    int fd;
    size_t n_runs;
};

static int write_line(struct tlr_eval_state *s, const char *line, size_t len,
                      struct tlr_err *err)
{
    while (len > 0) {
        ssize_t n = write(s->fd, line, len);
        if (n < 0 && errno != EINTR)
            return tlr_err_set_errno(err, TLR_EIO, errno, "%s: writing failed",
                                     s->path);
        if (n > 0) {
            line += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

/* ---- reading ---- */

static int check_header(const char *path, const char *found, size_t len,
                        const char *header, struct tlr_err *err)
{
    json_t *has = NULL, *wants = NULL, *value;
    const char *key;
    struct tlr_bytes bytes = {(const uint8_t *)found, len};
    struct tlr_bytes want_bytes = {(const uint8_t *)header, strlen(header)};
    if (len == want_bytes.len && memcmp(found, header, len) == 0)
        return 0;
    int rc = tlr_json_object(&has, bytes, STATE_BYTES_MAX, path, err);
    if (!rc)
        rc = tlr_json_object(&wants, want_bytes, STATE_BYTES_MAX, "this run",
                             err);
    if (!rc && !json_object_get(has, "tlr_eval"))
        rc = tlr_err_set(err, TLR_EFORMAT,
                         "%s: line 1: expected the header of a state file of "
                         "tlr eval; give another --state",
                         path);
    if (!rc)
        json_object_foreach(wants, key, value)
            if (!rc && !json_equal(value, json_object_get(has, key)))
                rc = tlr_err_set(err, TLR_EMISMATCH,
                                 "%s: belongs to a run with another %s; give "
                                 "the same options and files, or another "
                                 "--state",
                                 path, key);
    if (!rc) /* keys in another order, or more of them */
        rc = tlr_err_set(err, TLR_EMISMATCH,
                         "%s: line 1: was written by another version; give "
                         "another --state",
                         path);
    json_decref(has);
    json_decref(wants);
    return rc;
}

static bool count_at(const json_t *row, size_t i, uint32_t *out)
{
    const json_t *v = json_array_get(row, i);
    json_int_t n = json_is_integer(v) ? json_integer_value(v) : -1;
    *out = (uint32_t)n;
    return n >= 0 && n <= UINT32_MAX;
}

static bool outcome_of(const json_t *row, struct tlr_outcome *o)
{
    const json_t *choice = json_array_get(row, 3), *nll = json_array_get(row, 8);
    if (json_array_size(row) != N_FIELDS || !json_is_integer(choice) ||
        json_integer_value(choice) < -1 ||
        json_integer_value(choice) >= TLR_CHOICES_MAX || !json_is_number(nll))
        return false;
    o->choice = (int32_t)json_integer_value(choice);
    o->nll = json_number_value(nll);
    return count_at(row, 0, &o->n_judged) && count_at(row, 1, &o->n_right) &&
           count_at(row, 2, &o->n_strict) && count_at(row, 4, &o->n_tok) &&
           count_at(row, 5, &o->n_asked) && count_at(row, 6, &o->n_known) &&
           count_at(row, 7, &o->n_agree) && o->n_right <= o->n_judged &&
           o->n_asked <= o->n_tok && o->n_agree <= o->n_known;
}

static int read_item(const char *path, size_t line_no, const char *line,
                     size_t len, struct tlr_outcome *outcomes, uint8_t *done,
                     size_t n_items, size_t n_runs, struct tlr_err *err)
{
    char where[512];
    json_t *root = NULL;
    struct tlr_bytes bytes = {(const uint8_t *)line, len};
    snprintf(where, sizeof where, "%s: line %zu", path, line_no);
    int rc = tlr_json_object(&root, bytes, STATE_BYTES_MAX, where, err);
    if (rc)
        return rc;
    const json_t *item = json_object_get(root, "item");
    const json_t *runs = json_object_get(root, "runs");
    bool ok = json_is_integer(item) && json_integer_value(item) >= 0 &&
              (uint64_t)json_integer_value(item) < n_items &&
              json_array_size(runs) == n_runs;
    size_t i = ok ? (size_t)json_integer_value(item) : 0;
    for (size_t r = 0; r < n_runs && ok; r++)
        ok = outcome_of(json_array_get(runs, r), &outcomes[i * n_runs + r]);
    json_decref(root);
    if (!ok)
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: expected an item below %zu with %zu runs of %d "
                           "numbers; give another --state, or delete the line",
                           where, n_items, n_runs, N_FIELDS);
    done[i] = 1;
    return 0;
}

/* *keep: bytes of whole lines. */
static int read_all(const struct tlr_eval_state *s, const char *text,
                    size_t len, const char *header,
                    struct tlr_outcome *outcomes, uint8_t *done,
                    size_t n_items, size_t *keep, struct tlr_err *err)
{
    size_t line_no = 1;
    int rc = 0;
    *keep = 0;
    for (const char *end;
         !rc && (end = memchr(text + *keep, '\n', len - *keep)); line_no++) {
        size_t n = (size_t)(end - (text + *keep));
        rc = line_no == 1
                 ? check_header(s->path, text, n, header, err)
                 : read_item(s->path, line_no, text + *keep, n, outcomes, done,
                             n_items, s->n_runs, err);
        *keep += n + 1;
    }
    return rc;
}

/* ---- the handle ---- */

static int begin(struct tlr_eval_state *s, const char *header,
                 struct tlr_outcome *outcomes, uint8_t *done, size_t n_items,
                 struct tlr_err *err)
{
    char *text = NULL;
    size_t len = 0, keep = 0;
    s->fd = open(s->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (s->fd < 0)
        return tlr_err_set_errno(err, TLR_EIO, errno, "%s: cannot open",
                                 s->path);
    if (flock(s->fd, LOCK_EX | LOCK_NB) != 0)
        return tlr_err_set(err, TLR_EIO, "%s: another tlr eval is writing it",
                           s->path);
    off_t size = lseek(s->fd, 0, SEEK_END);
    int rc = size > 0 ? tlr_read_file(&text, &len, s->path, STATE_BYTES_MAX,
                                      err)
                      : 0;
    if (!rc && text)
        rc = read_all(s, text, len, header, outcomes, done, n_items, &keep,
                      err);
    tlr_free(text);
    if (!rc && keep < len && ftruncate(s->fd, (off_t)keep) != 0)
        rc = tlr_err_set_errno(err, TLR_EIO, errno, "%s: cannot cut its end",
                               s->path);
    if (!rc && keep == 0) {
        rc = write_line(s, header, strlen(header), err);
        if (!rc)
            rc = write_line(s, "\n", 1, err);
    }
    return rc;
}

int tlr_eval_state_open(struct tlr_eval_state **out, const char *path,
                        const char *header, struct tlr_outcome *outcomes,
                        uint8_t *done, size_t n_items, size_t n_runs,
                        struct tlr_err *err)
{
    struct tlr_eval_state *s = tlr_calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return tlr_err_nomem(err, "state", sizeof *s);
    s->fd = -1;
    s->n_runs = n_runs;
    s->path = tlr_strdup(path);
    int rc = s->path ? begin(s, header, outcomes, done, n_items, err)
                     : tlr_err_nomem(err, "state", strlen(path) + 1);
    if (rc) {
        tlr_eval_state_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

static json_t *row_of(const struct tlr_outcome *o)
{
    return json_pack("[IIIiIIIIf]", (json_int_t)o->n_judged,
                     (json_int_t)o->n_right, (json_int_t)o->n_strict,
                     (int)o->choice, (json_int_t)o->n_tok,
                     (json_int_t)o->n_asked, (json_int_t)o->n_known,
                     (json_int_t)o->n_agree, o->nll);
}

int tlr_eval_state_add(struct tlr_eval_state *s, size_t item,
                       const struct tlr_outcome *outcomes, struct tlr_err *err)
{
    json_t *runs = json_array();
    int bad = 0;
    for (size_t r = 0; r < s->n_runs; r++)
        bad |= json_array_append_new(runs, row_of(&outcomes[r]));
    json_t *root = json_pack("{s:I,s:o}", "item", (json_int_t)item, "runs",
                             runs);
    char *line = NULL;
    size_t len = 0;
    int rc = root && !bad ? tlr_json_dump(root, &line, &len, err)
                          : tlr_err_nomem(err, "state", s->n_runs);
    json_decref(root);
    if (!rc) {
        line[len] = '\n'; /* in the place of the NUL */
        rc = write_line(s, line, len + 1, err);
    }
    tlr_free(line);
    return rc;
}

void tlr_eval_state_close(struct tlr_eval_state *s)
{
    if (!s)
        return;
    if (s->fd >= 0)
        close(s->fd);
    tlr_free(s->path);
    tlr_free(s);
}

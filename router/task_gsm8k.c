/* task_gsm8k.c - a line of school maths: CITER's prompt, answers in \boxed{}. */
#include "router/answer.h"
#include "router/task_line.h"

/* The answer is what the solution's last box holds. */
static int read_solution(const struct tlr_task_line *line,
                         struct tlr_item *out)
{
    const char *problem, *solution;
    int rc = tlr_task_peek(line, "problem", true, &problem);
    if (!rc) {
        rc = tlr_task_peek(line, "solution", true, &solution);
    }
    if (rc) {
        return rc;
    }
    const char *pieces[] = {
        "Solve the following math problem step by step. Ensure all reasoning "
        "is shown clearly in LaTeX format, and you should enclose your answer "
        "with \\boxed{}.\nQuestion: ",
        problem, "\nSolution: "};
    size_t start, n, n_boxed, len = json_string_length(
        json_object_get(line->root, "solution"));
    if (!tlr_answer_find_boxed(solution, len, &start, &n, &n_boxed) || n == 0) {
        return tlr_err_set(line->err, TLR_EFORMAT,
                           "%s: solution: expected the answer in \\boxed{}, "
                           "found none; get the file again",
                           line->where);
    }
    out->prompt = tlr_task_join(line, pieces, 3);
    out->answer = tlr_task_copy(line, solution + start, n);
    out->chain = tlr_task_copy(line, solution, len);
    return out->prompt && out->answer && out->chain ? 0 : TLR_ENOMEM;
}

int tlr_gsm8k_read(const struct tlr_task_line *line, struct tlr_item *out)
{
    if (json_object_get(line->root, "problem")) {
        return read_solution(line, out);
    }
    int rc = tlr_task_text(line, "prompt", true, &out->prompt);
    if (!rc) {
        rc = tlr_task_text(line, "answerKey", true, &out->answer);
    }
    return rc ? rc : tlr_task_text(line, "cot", false, &out->chain);
}

/* signals.c - Ctrl-C, SIGTERM and SIGHUP.
 *
 * Verbs that can stop in order hold the first signal and ask for it between
 * steps; everywhere else, and at the second one, temporaries go and the process
 * ends by the signal itself, as its caller expects.
 */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/cli.h"

static volatile sig_atomic_t held, noted;

static void on_signal(int number)
{
    if (held && !noted) {
        noted = 1;
        return;
    }
    tlr_out_cleanup();
    signal(number, SIG_DFL);
    raise(number);
}

void cli_signals_begin(void)
{
    struct sigaction act;
    memset(&act, 0, sizeof act);
    sigemptyset(&act.sa_mask);
    act.sa_handler = SIG_IGN;
    /* Both are errors of a write (EPIPE, EFBIG) and handled where it fails. */
    sigaction(SIGPIPE, &act, NULL);
    sigaction(SIGXFSZ, &act, NULL);
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
    for (size_t i = 0; i < CLI_COUNT(signals); i++) {
        struct sigaction old;
        /* nohup and background jobs ignore some: leave it so. */
        if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler == SIG_IGN)
            continue;
        act.sa_handler = on_signal;
        sigaction(signals[i], &act, NULL);
    }
}

void cli_interrupt_hold(void)
{
    noted = 0;
    held = 1;
}

void cli_interrupt_release(void)
{
    held = 0;
}

bool cli_interrupted(void)
{
    return noted != 0;
}

#define _GNU_SOURCE
/*
 * Lines on stderr. See terminal.h.
 *
 * Thread: any.
 */

#include "train/terminal.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

bool strata_terminal_is_there(void)
{
    return isatty(STDERR_FILENO) == 1;
}

uint32_t strata_terminal_columns(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

void strata_terminal_write(const char *text, size_t bytes)
{
    while (bytes > 0) {
        ssize_t wrote = write(STDERR_FILENO, text, bytes);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return;
        text += wrote;
        bytes -= (size_t)wrote;
    }
}

/* Reads of mapped pages that end in an error instead of the death of the process.
 *
 * A page that the medium cannot give (EIO, a file that was cut short) raises SIGBUS in whoever touches it. While
 * a guarded call runs in a thread, that signal ends the call; anywhere else it goes to the handler that was
 * there before ours. The guarded functions hold no lock and own no memory, so they may be left in the middle.
 */
#ifndef SILTSTONE_GUARD_H
#define SILTSTONE_GUARD_H

#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>

static __thread sigjmp_buf *volatile guard_return;
static struct sigaction guard_previous;

static void guard_on_sigbus(int number, siginfo_t *info, void *context) {
    if (guard_return != NULL)
        siglongjmp(*guard_return, 1);
    /* Taken out before it is called: it may restore us as its own predecessor and raise the signal again. */
    struct sigaction previous = guard_previous;
    memset(&guard_previous, 0, sizeof guard_previous);
    guard_previous.sa_handler = SIG_DFL;
    if (previous.sa_flags & SA_SIGINFO)
        previous.sa_sigaction(number, info, context);
    else if (previous.sa_handler == SIG_DFL)
        signal(SIGBUS, SIG_DFL); /* the access is made again, and ends the process as it always did */
    else if (previous.sa_handler != SIG_IGN)
        previous.sa_handler(number);
}

/* Take SIGBUS if another handler has it now; 0, or -1 where the kernel refuses. */
static int guard_install(void) {
    struct sigaction now, ours;
    if (sigaction(SIGBUS, NULL, &now))
        return -1;
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == guard_on_sigbus)
        return 0;
    memset(&ours, 0, sizeof ours);
    ours.sa_sigaction = guard_on_sigbus;
    ours.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigemptyset(&ours.sa_mask);
    guard_previous = now;
    return sigaction(SIGBUS, &ours, NULL);
}

/* Run `call(argument)`; 0, or -1 where it touched a page that could not be read. */
static int guard_call(void (*call)(void *), void *argument) {
    sigjmp_buf here;
    sigjmp_buf *volatile outer = guard_return;
    int failed = 0;
    if (sigsetjmp(here, 0) == 0) {
        guard_return = &here;
        call(argument);
    } else {
        failed = -1;
    }
    guard_return = outer;
    return failed;
}

#endif

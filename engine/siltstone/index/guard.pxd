"""Calls that survive a page which cannot be read. One module has them, so that one handler of SIGBUS is ours."""

cdef int install() except -1
cdef int guarded(void (*call)(void *) noexcept nogil, void *argument) noexcept nogil
cdef object unreadable(str while_doing)

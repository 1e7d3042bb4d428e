"""Calls that survive a page which cannot be read, see guard.h."""

from siltstone.errors import MediumError

cdef extern from "index/guard.h" nogil:
    int guard_install()
    int guard_call(void (*call)(void *) noexcept nogil, void *argument)


cdef int install() except -1:
    """Take SIGBUS, unless it is ours already."""
    if guard_install():
        raise OSError("SIGBUS cannot be handled")
    return 0


cdef int guarded(void (*call)(void *) noexcept nogil, void *argument) noexcept nogil:
    """Run `call(argument)`; 0, or -1 where it touched a page that could not be read."""
    return guard_call(call, argument)


cdef object unreadable(str while_doing):
    return MediumError(
        f"a mapped page could not be read while {while_doing}: the medium fails, or the file was cut short",
        operation="read")

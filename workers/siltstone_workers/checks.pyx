"""Items of messages, made sure of. Compiled: every message, and every batch and shard in one, goes through here."""

from siltstone_workers.errors import ProtocolError
from siltstone_workers.kinds import name_of


cdef inline bint is_count(object item):
    """Whether it is a whole number that is not negative."""
    return type(item) is int and item >= 0


cdef bint fits(object item, object kind) except -1:
    """Whether an item is of a kind: a type, where whole numbers are not negative, or a tuple of types and None."""
    cdef object each
    if kind is int:
        return is_count(item)
    if type(kind) is not tuple:
        return type(item) is kind
    for each in <tuple>kind:
        if type(item) is each or (item is None and each is None):
            return True
    return False


def expect(list fields not None, *kinds):
    """The items behind the kind of a message, if they are of these types; ProtocolError where they are not."""
    return expect_items(fields, kinds)


cdef list expect_items(list fields, tuple kinds):
    """As :func:`expect`."""
    cdef list items = fields[1:]
    cdef Py_ssize_t at, count = len(items)
    cdef bint good = count == len(kinds)
    for at in range(count if good else 0):
        if not fits(items[at], kinds[at]):
            good = False
            break
    if not good:
        name = name_of(fields)
        raise ProtocolError(f"message {name}: items {items!r:.120} do not fit", rule=f"items of {name}", value=None)
    return items


def rows(str what not None, value, Py_ssize_t width):
    """A list of lists of `width` whole numbers that are not negative; ProtocolError with the rule `what` where it is
    something else."""
    return count_rows(what, value, width)


cdef list count_rows(str what, value, Py_ssize_t width):
    """As :func:`rows`."""
    cdef object row, item
    cdef bint good = type(value) is list
    if good:
        for row in <list>value:
            if type(row) is not list or len(<list>row) != width:
                good = False
                break
            for item in <list>row:
                if not is_count(item):
                    good = False
                    break
            if not good:
                break
    if not good:
        raise ProtocolError(f"no {what}: {value!r:.120}", rule=what, value=None)
    return value

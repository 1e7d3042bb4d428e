cdef list expect_items(list fields, tuple kinds)
cdef list count_rows(str what, value, Py_ssize_t width)

# Nothing for Python: its functions are for other kernels.

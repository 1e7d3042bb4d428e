"""The compiled kernels; everything else about the build is in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, setup

COMPILE_ARGS = ["-O3", "-fno-strict-aliasing", "-Wall", "-Wno-unused-function"]


def kernel(name: str) -> Extension:
    """One extension module from engine/siltstone/<package>/<name>.pyx."""
    return Extension(
        f"siltstone.{name}",
        [f"engine/siltstone/{name.replace('.', '/')}.pyx"],
        include_dirs=["engine/siltstone"],
        extra_compile_args=COMPILE_ARGS,
    )


setup(
    ext_modules=cythonize(
        [kernel("format.kernels"), kernel("index.table")],
        include_path=["engine"],
        compiler_directives={"language_level": 3, "boundscheck": False, "wraparound": False, "cdivision": True},
    )
)

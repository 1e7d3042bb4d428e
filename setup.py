"""The compiled kernels; everything else about the build is in pyproject.toml.

The same could stand there as [[tool.setuptools.ext-modules]], which setuptools still calls experimental and
which has no place for the directives.
"""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

SOURCES = "engine/siltstone"
PROCESSORS = len(os.sched_getaffinity(0))


def kernel(name: str, package: str = "siltstone", folder: str = SOURCES) -> Extension:
    """One extension module of a package from its <name>.pyx, dots for folders."""
    return Extension(
        f"{package}.{name}",
        [f"{folder}/{name.replace('.', '/')}.pyx"],
        include_dirs=[SOURCES],
        # No -march=native: a wheel travels to other processors.
        extra_compile_args=["-O3", "-g0", "-fno-strict-aliasing", "-Wall", "-Wno-unused-function"],
    )


setup(
    ext_modules=cythonize(
        [
            kernel("format.kernels"),
            kernel("hash_store.builder"),
            kernel("hash_store.filter"),
            kernel("hash_store.merging"),
            kernel("hash_store.older"),
            kernel("hash_store.sorting"),
            kernel("hash_store.view"),
            kernel("index.guard"),
            kernel("index.layout"),
            kernel("index.mapped"),
            kernel("index.pending"),
            kernel("index.routing"),
            kernel("index.segments"),
            kernel("index.table"),
            kernel("index.types"),
            kernel("index.view"),
            kernel("locks"),
            kernel("lookup.reader"),
            kernel("shard.group_commit"),
            kernel("shard.tail_append"),
            kernel("volume.mapping"),
            kernel("volume.writing"),
            kernel("_descriptors", "siltstone_plugins", "plugins/siltstone_plugins"),
            kernel("answers", "siltstone_workers", "workers/siltstone_workers"),
            kernel("checks", "siltstone_workers", "workers/siltstone_workers"),
            kernel("credit", "siltstone_workers", "workers/siltstone_workers"),
            kernel("decoding", "siltstone_workers", "workers/siltstone_workers"),
            kernel("encoding", "siltstone_workers", "workers/siltstone_workers"),
            kernel("ledger", "siltstone_workers", "workers/siltstone_workers"),
            kernel("machine", "siltstone_workers", "workers/siltstone_workers"),
            kernel("outbox", "siltstone_workers", "workers/siltstone_workers"),
            kernel("receiver", "siltstone_workers", "workers/siltstone_workers"),
            kernel("requests", "siltstone_workers", "workers/siltstone_workers"),
            kernel("sender", "siltstone_workers", "workers/siltstone_workers"),
            kernel("waiting", "siltstone_workers", "workers/siltstone_workers"),
        ],
        include_path=["engine", "plugins", "workers"],
        nthreads=PROCESSORS,
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
        },
    ),
    options={"build_ext": {"parallel": PROCESSORS}},
)

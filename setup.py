"""Builds the native kernels, `nnlab/kernels/cpp`, as a library beside the package's Python.

Nothing else needs a compiler: where there is none, or XLA's headers are missing, the build leaves
the library out and succeeds, and nnlab runs on XLA's bodies. The inner loops are compiled once per
instruction set and chosen at run time, so that a wheel serves every processor of its kind.
"""

import platform
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = Path("nnlab/kernels/cpp")
FLAGS = [
    "-std=c++17",
    "-O3",
    "-ffp-contract=fast",
    "-fvisibility=hidden",
    "-g0",
    "-Wall",
    "-Wextra",
]
AVX2 = ["-mavx2", "-mfma"]
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512vl", *AVX2]
BYTES = [*AVX512, "-mavx512bw"]
LOOPS = {  # {file: {what it defines: flags}}, for x86-64; elsewhere there is the baseline alone
    str(SOURCES / "loops.cc"): {
        "kBaselineLoops": [],
        "kAvx2Loops": AVX2,
        "kAvx512Loops": AVX512,
    },
    str(SOURCES / "integer_loops.cc"): {
        "kBaselineLoops": [],
        "kAvx2Loops": AVX2,
        "kAvx512Loops": BYTES,
        "kAvx512CountingLoops": [*BYTES, "-mavx512vpopcntdq"],
    },
    str(SOURCES / "ternary_loops.cc"): {
        "kBaselineLoops": [],
        "kAvx2Loops": AVX2,
        "kAvx512Loops": BYTES,
        "kAvx512VnniLoops": [*BYTES, "-mavx512vnni"],
        "kAvx512VbmiLoops": [*BYTES, "-mavx512vnni", "-mavx512vbmi"],
    },
}


class build_native(build_ext):
    def build_extension(self, ext):
        jaxlib = find_spec("jaxlib")
        if jaxlib is None or jaxlib.origin is None:
            self.warn("jaxlib with XLA's headers is not here: nnlab goes without native kernels")
            return
        headers = str(Path(jaxlib.origin).parent / "include")
        ext.extra_compile_args = [*FLAGS, "-isystem", headers]  # no warnings about these
        objects = []
        for source, sets in LOOPS.items():
            for name, flags in sets.items():
                if flags and platform.machine().lower() not in ("x86_64", "amd64"):
                    continue
                objects += self.compiler.compile(
                    [source],
                    output_dir=str(Path(self.build_temp, name)),
                    macros=[("NNLAB_LOOPS", name)],
                    extra_postargs=[*FLAGS, *flags],
                    depends=ext.depends,
                )
        ext.extra_objects = objects
        super().build_extension(ext)


setup(
    ext_modules=[
        Extension(
            "nnlab.kernels._native",
            sources=sorted(str(path) for path in SOURCES.glob("*.cc") if str(path) not in LOOPS),
            depends=sorted(str(path) for path in [*SOURCES.glob("*.h"), *map(Path, LOOPS)]),
            language="c++",
            optional=True,
        )
    ],
    cmdclass={"build_ext": build_native},
)

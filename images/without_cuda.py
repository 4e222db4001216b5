"""torch on a machine without a GPU: PyPI's build of it, without the 4 GB of CUDA that it is linked to and never calls there.

The package index has one torch for Linux, the CUDA build. Its libraries name CUDA's as needed, so the loader wants a file for
each; but they call them through lazily bound functions only. So those packages stay out (`left_out`), each missing library is
replaced by an empty one of the same name, and extension modules are loaded with lazy binding (`make_do`). Two packages stay,
because they are used while torch loads: the CUDA runtime, which says that there is no device, and NVSHMEM, whose variables are
bound at once. Devices are hidden, so torch never tries; if it did, the process would end with "undefined symbol".
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

KEPT = ("nvidia-cuda-runtime", "nvidia-nvshmem-cu13")
UNUSED = (  # headers, static and device libraries, compilers: for building and for GPUs
    "torch/include", "torch/share", "torch/bin/protoc*", "nvidia/*/include", "nvidia/*/lib/*.a", "nvidia/*/lib/*.bc",
    "nvidia/nvshmem/lib/nvshmem_*",
)  # fmt: skip
MISSING = re.compile(r"ImportError: (lib(?:cu|nv|nccl)[\w.-]*): cannot open shared object file")
LAZY = """import os, sys; sys.setdlopenflags(os.RTLD_LAZY); os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")\n"""


def left_out(lock: str) -> list[str]:
    """The packages of CUDA in uv.lock that a CPU does without."""
    named = re.findall(r'^name = "((?:nvidia|cuda|triton)\b[^"]*)"', lock, re.MULTILINE)
    return [name for name in named if name not in KEPT]


def make_do(environment: Path) -> None:
    """Let torch in this virtual environment load without what was left out.

    Raises:
        RuntimeError: it does not, for another reason.
    """
    (site,) = environment.glob("lib/python*/site-packages")
    for pattern in UNUSED:
        for path in site.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (site / "without_cuda.pth").write_text(LAZY)
    libraries = site / "torch/lib"
    (machine,) = struct.unpack_from("<H", (libraries / "libtorch.so").read_bytes(), 18)
    while True:
        tried = subprocess.run(  # noqa: S603
            [environment / "bin/python", "-B", "-c", "import torch; torch.ones(2, 2, requires_grad=True).sum().backward()"],
            capture_output=True,
            text=True,
            check=False,
        )
        if tried.returncode == 0:
            return
        missing = MISSING.search(tried.stderr)
        if missing is None or (libraries / missing[1]).exists():
            raise RuntimeError(f"torch does not load without CUDA: {tried.stderr.strip()}")
        (libraries / missing[1]).write_bytes(empty_library(missing[1], machine))


def empty_library(name: str, machine: int) -> bytes:
    """An ELF shared object (64 bit, little endian) of this name that defines nothing: System V ABI, chapters 4 and 5."""
    strings = b"\0" + name.encode() + b"\0"
    symbols_at = 64 + 2 * 56  # after the header and two program headers
    hash_at = symbols_at + 24  # one symbol, the undefined one
    dynamic_at = hash_at + 16
    strings_at = dynamic_at + 7 * 16
    size = strings_at + len(strings)
    #       SONAME  STRTAB           STRSZ               SYMTAB           SYMENT    HASH          NULL
    tags = ((14, 1), (5, strings_at), (10, len(strings)), (6, symbols_at), (11, 24), (4, hash_at), (0, 0))
    header = struct.pack("<16s2HI3QI6H", b"\x7fELF\2\1\1", 3, machine, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    load = struct.pack("<2I6Q", 1, 6, 0, 0, 0, size, size, 0x10000)
    dynamic = struct.pack("<2I6Q", 2, 6, dynamic_at, dynamic_at, dynamic_at, 7 * 16, 7 * 16, 8)
    hashes = struct.pack("<4I", 1, 1, 0, 0)  # one bucket, one symbol, both empty
    return b"".join((header, load, dynamic, bytes(24), hashes, *(struct.pack("<2Q", *tag) for tag in tags), strings))

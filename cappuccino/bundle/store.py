"""Where bundles are kept: in the artifact store under bundles/{digest}/, and in a trader's own folder.

A bundle is written once, its manifest last: until then it does not exist, so a crash leaves nothing that could be
traded, and saving again completes it. Whatever is read back is verified in full before it is used.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from cappuccino.bundle.format import MANIFEST, Bundle, pack, unpack
from cappuccino.bundle.strategy import verify
from cappuccino.core.blobs import Blobs
from cappuccino.core.errors import InvalidInput, NotFound

PREFIX = "bundles"
_DIGEST = re.compile(r"[0-9a-f]{64}")


def save(blobs: Blobs, bundle: Bundle) -> str:
    """Store `bundle`; saving what is stored already is success. Returns its digest.

    Raises:
        IntegrityError: the bundle is not one that `load` would accept.
        Conflict: the store holds other bytes under this digest.
    """
    verify(bundle)
    for name, body in pack(bundle).items():  # the manifest comes last
        blobs.put(f"{PREFIX}/{bundle.digest}/{name}", body)
    return bundle.digest


def load(blobs: Blobs, digest: str) -> Bundle:
    """The bundle with this digest, verified.

    Raises:
        NotFound: the store has no such bundle.
        IntegrityError: what it has is not what was saved; names the file and the value.
    """
    prefix = f"{PREFIX}/{_checked(digest)}/"
    names = [key.removeprefix(prefix) for key in blobs.keys(prefix)]
    if MANIFEST not in names:
        raise NotFound(f"bundle {digest} is not in the store: check the digest, or the artifact URL")
    bundle = unpack(names, lambda name: blobs.get(prefix + name), digest=digest, where=f"bundle {digest}")
    verify(bundle)
    return bundle


def fetch_local(blobs: Blobs, digest: str, folder: Path) -> Bundle:
    """A verified copy under `folder`/{digest}; one that is there already is verified and the store is not asked.

    Raises:
        NotFound, IntegrityError: as `load`.
    """
    home = folder / _checked(digest)
    if home.exists():
        return open_local(folder, digest)
    bundle = load(blobs, digest)
    folder.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{digest[:12]}-", dir=folder))
    try:
        for name, body in pack(bundle).items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(body)
        try:
            os.rename(partial, home)  # whole or not at all
        except OSError:
            if not home.exists():
                raise  # not a race that somebody else won
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return open_local(folder, digest)


def open_local(folder: Path, digest: str) -> Bundle:
    """The bundle that `fetch_local` left under `folder`, verified.

    Raises:
        NotFound, IntegrityError: as `load`; the path is named.
    """
    home = folder / _checked(digest)
    names = [path.relative_to(home).as_posix() for path in sorted(home.rglob("*")) if path.is_file()]
    if MANIFEST not in names:
        raise NotFound(f"bundle {digest} is not in {folder}: fetch it first")
    bundle = unpack(names, lambda name: (home / name).read_bytes(), digest=digest, where=str(home))
    verify(bundle)
    return bundle


def _checked(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise InvalidInput(f"{digest!r} is not a bundle's digest: give 64 hexadecimal digits")
    return digest

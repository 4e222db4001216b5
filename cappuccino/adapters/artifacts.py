"""The artifact store over obstore: one URL, `file:///folder` or `s3://bucket/prefix`.

Write-once keys are put with create-if-absent, so of two writers one wins and the other finds out whether it wrote the
same. obstore stages a file and links it, so a reader sees all of an object or none. Errors are sorted here: what a
person must change (folder, scheme, credentials) is a UserError, a store that does not answer is RetryLater.

S3 takes its credentials and endpoint from the AWS_* environment variables, as obstore reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore import exceptions as failures
from obstore.store import LocalStore, S3Store

from cappuccino.core.errors import Conflict, InvalidInput, NotFound, RetryLater, UserError

TIMEOUT = timedelta(seconds=30)
RETRIES = 3
RETRY_FOR = timedelta(seconds=30)
_NO_SPACE = "No space left on device"  # as the operating system says it


def open_blobs(url: str, *, s3: Mapping[str, Any] | None = None, retries: int = RETRIES) -> ArtifactStore:
    """The store behind `url`; a missing folder is made.

    Args:
        s3: obstore's S3 configuration, over what the environment says.

    Raises:
        InvalidInput: unknown scheme, or a URL without a folder or bucket.
        UserError: the folder cannot be made.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise InvalidInput(f"artifact URL {url!r} names no absolute folder: write file:///folder")
        return ArtifactStore(_local(Path(unquote(parts.path))), url)
    if parts.scheme == "s3":
        if not parts.netloc:
            raise InvalidInput(f"artifact URL {url!r} names no bucket: write s3://bucket/prefix")
        config: Any = dict(s3 or {})
        store = S3Store.from_url(
            url,
            config=config,
            client_options={"timeout": TIMEOUT, "connect_timeout": timedelta(seconds=5), "allow_http": True},
            retry_config={"max_retries": retries, "retry_timeout": RETRY_FOR},
        )
        return ArtifactStore(store, url)
    raise InvalidInput(f"artifact URL {url!r} has scheme {parts.scheme or 'none'!r}: use file:///folder or s3://bucket/prefix")


class ArtifactStore:
    """Implements `core.blobs.Blobs`."""

    def __init__(self, store: Any, url: str) -> None:
        self._store = store
        self.url = url

    def put(self, key: str, payload: bytes) -> None:
        try:
            with self._sorted(key, "write"):
                obstore.put(self._store, _checked(key), payload, mode="create")
        except Conflict:
            if self.get(key) != payload:
                raise

    def replace(self, key: str, payload: bytes) -> None:
        with self._sorted(key, "write"):
            obstore.put(self._store, _checked(key), payload, mode="overwrite")

    def get(self, key: str) -> bytes:
        with self._sorted(key, "read"):
            return bytes(obstore.get(self._store, _checked(key)).bytes())

    def exists(self, key: str) -> bool:
        try:
            with self._sorted(key, "read"):
                obstore.head(self._store, _checked(key))
        except NotFound:
            return False
        return True

    def delete(self, key: str) -> None:
        try:
            with self._sorted(key, "delete"):
                obstore.delete(self._store, _checked(key))
        except NotFound:
            return

    def keys(self, prefix: str) -> list[str]:
        # A store lists by whole folders; a prefix that ends inside a name is narrowed here.
        folder = prefix.rpartition("/")[0]
        with self._sorted(prefix, "list"):
            batches = obstore.list(self._store, folder or None)
            found = [str(entry["path"]) for batch in batches for entry in batch]
        return sorted(key for key in found if key.startswith(prefix))

    @contextmanager
    def _sorted(self, key: str, verb: str) -> Iterator[None]:
        """obstore's failures as ours."""
        where = f"artifact {key!r} in {self.url}"
        try:
            yield
        except (FileNotFoundError, failures.NotFoundError) as error:
            raise NotFound(f"{where} does not exist: check the key, or the artifact URL") from error
        except failures.AlreadyExistsError as error:
            raise Conflict(f"{where} holds other bytes already: artifacts are written once, use another key") from error
        except (failures.PermissionDeniedError, failures.UnauthenticatedError, PermissionError) as error:
            raise UserError(f"cannot {verb} {where} ({_cause(error)}): grant this process access to the store") from error
        except (failures.BaseError, OSError) as error:
            if isinstance(self._store, LocalStore):
                if _NO_SPACE in str(error):
                    raise RetryLater(f"cannot {verb} {where}, {_NO_SPACE}: make room; it is tried again") from error
                raise UserError(f"cannot {verb} {where} ({_cause(error)}): make the folder writable") from error
            raise RetryLater(
                f"cannot {verb} {where} ({_cause(error)}): the store does not answer; it is tried again"
            ) from error


def _local(folder: Path) -> LocalStore:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"artifact folder {folder} cannot be made ({error.strerror}): choose another or grant access"
        ) from error
    return LocalStore(folder)


def _checked(key: str) -> str:
    if not key or key.startswith("/") or any(part in ("", ".", "..") for part in key.split("/")):
        raise InvalidInput(f"artifact key {key!r} is not relative with / between parts: correct it")
    return key


def _cause(error: Exception) -> str:
    """obstore appends a dump of the error's source after the first line."""
    return str(error).partition("\n")[0][:200]

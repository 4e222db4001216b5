"""The OCI archive that is made without a builder."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from hack.cluster.images import archive


def blobs(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]


def follow(files: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    """The blob that a descriptor points to, if digest and size are its own."""
    algorithm, _, digest = descriptor["digest"].partition(":")
    blob = files[f"blobs/{algorithm}/{digest}"]
    assert hashlib.sha256(blob).hexdigest() == digest
    assert len(blob) == descriptor["size"]
    return blob


def test_every_descriptor_leads_to_its_blob(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    archive(path, "example.com/pause:1", {"/bin/pause": b"program"}, entrypoint=["/bin/pause"])
    files = blobs(path)
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "example.com/pause:1"

    manifest = json.loads(follow(files, entry))
    configuration = json.loads(follow(files, manifest["config"]))
    (layer,) = (follow(files, descriptor) for descriptor in manifest["layers"])
    assert configuration["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    assert configuration["config"] == {"Entrypoint": ["/bin/pause"], "User": "65535:65535"}

    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        (member,) = tar.getmembers()
        assert (member.name, member.mode) == ("bin/pause", 0o755)


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        archive(tmp_path / name, "example.com/pause:1", {"/pause": b"program"}, entrypoint=["/pause"])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

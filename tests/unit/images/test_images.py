"""What holds of the image builds without building one."""

from __future__ import annotations

import ctypes
import io
import json
import platform
import re
import tarfile
import tomllib
from pathlib import Path

import pytest

from hack.images.__main__ import DOCKERFILES, save
from hack.images.engine import Build, Built
from images import install, without_cuda

ROOT = Path(__file__).parents[3]
LOCK = (ROOT / "uv.lock").read_text()
MACHINE = {"x86_64": 62, "aarch64": 183}


def instructions(name: str) -> list[str]:
    text = (ROOT / DOCKERFILES[name]).read_text().replace("\\\n", "")
    return [" ".join(line.split()) for line in text.splitlines() if line and not line.startswith("#")]


def final_stage(name: str) -> list[str]:
    lines = instructions(name)
    return lines[[i for i, line in enumerate(lines) if line.startswith("FROM")][-1] :]


def closure(*extras: str) -> set[str]:
    """Names of all that the project needs, by uv.lock."""
    packages: dict[str, list[dict[str, object]]] = {}
    for package in tomllib.loads(LOCK)["package"]:
        packages.setdefault(package["name"], []).append(package)
    found: set[str] = set()
    todo = [("cappuccino", extra) for extra in ("", *extras)]
    while todo:
        name, extra = todo.pop()
        for package in packages[name]:
            wanted = package.get("optional-dependencies", {}).get(extra, []) if extra else package.get("dependencies", [])  # type: ignore[attr-defined]
            for needed in wanted:
                if needed["name"] not in found:
                    todo.append((needed["name"], ""))
                todo += [(needed["name"], part) for part in needed.get("extra", []) if (needed["name"], part) not in todo]
                found.add(needed["name"])
    return found


@pytest.mark.parametrize("name", DOCKERFILES)
def test_all_images_have_one_dependency_layer(name: str) -> None:
    def before_code(lines: list[str]) -> list[str]:
        return lines[: 1 + next(i for i, line in enumerate(lines) if "install.py dependencies" in line)]

    assert before_code(instructions(name)) == before_code(instructions("trader"))
    assert not any("cappuccino cappuccino" in line for line in before_code(final_stage(name)))


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_without_root(name: str) -> None:
    lines = final_stage(name)
    assert "USER 65532:65532" in lines
    assert not any(line.startswith(("RUN", "COPY", "ADD")) for line in lines[lines.index("USER 65532:65532") :])


def test_only_the_training_image_has_torch() -> None:
    extras = {name: re.findall(r"install.py extra (\w+)", "\n".join(final_stage(name))) for name in DOCKERFILES}
    assert extras == {"trader": ["coinbase"], "operator": ["operator"], "dashboard": [], "train": ["train"]}
    assert "torch" not in closure("operator")
    assert {"kopf", "onnxruntime"} <= closure("operator")
    assert "torch" in closure("train")
    assert "coinbase-advanced-py" in closure("coinbase") - closure("operator", "train")


def test_a_cpu_does_without_every_package_of_cuda_but_two() -> None:
    of_cuda = {name for name in closure("train") if re.match("nvidia-|cuda-|triton", name)}
    assert len(of_cuda) > 10
    assert of_cuda - set(without_cuda.left_out(LOCK)) == set(without_cuda.KEPT)


@pytest.mark.skipif(platform.machine() not in MACHINE, reason="no such torch")
def test_an_empty_library_stands_in_for_the_one_of_its_name(tmp_path: Path) -> None:
    name = "libempty-for-a-test.so.13"
    with pytest.raises(OSError, match="cannot open"):
        ctypes.CDLL(name)
    (tmp_path / "under-another-name").write_bytes(without_cuda.empty_library(name, MACHINE[platform.machine()]))
    ctypes.CDLL(str(tmp_path / "under-another-name"))
    found = ctypes.CDLL(name)  # loaded: the loader knows it by the name that it says it has
    with pytest.raises(AttributeError, match="undefined symbol"):
        found.cublasCreate_v2  # noqa: B018


def test_bytecode_never_looks_at_its_source(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("X = 1\n")
    (tmp_path / "not_for_this_python.py").write_text("match = = 1\n")
    install.compile_below(tmp_path)
    (compiled,) = (tmp_path / "__pycache__").iterdir()
    assert compiled.read_bytes()[4:8] == b"\x01\x00\x00\x00"  # PEP 552: by hash, not checked


class Shelf:
    """An engine whose images are tar files of one number."""

    name = "shelf"
    saved = 0

    def stand_in(self, default: str) -> str | None:
        raise NotImplementedError

    def build(self, build: Build) -> Built:
        raise NotImplementedError

    def room(self) -> str:
        raise NotImplementedError

    def save(self, reference: str, path: Path) -> None:
        self.saved += 1
        manifest = json.dumps([{"Config": "blobs/sha256/abc", "RepoTags": [f"docker.io/{reference}"]}]).encode()
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo("manifest.json")
            member.size = len(manifest)
            archive.addfile(member, io.BytesIO(manifest))


def test_an_archive_is_written_when_image_or_tag_changed(tmp_path: Path) -> None:
    shelf, path = Shelf(), tmp_path / "archives" / "trader.tar"
    for _ in range(2):
        save(shelf, "cappuccino/trader:1", "sha256:abc", path)
    assert shelf.saved == 1
    save(shelf, "cappuccino/trader:2", "sha256:abc", path)
    save(shelf, "cappuccino/trader:2", "sha256:def", path)
    assert shelf.saved == 3

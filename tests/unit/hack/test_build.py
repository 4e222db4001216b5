"""What is built, and when it is built anew."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cappuccino.core.errors import NotFound, UserError
from hack.cluster import build, cache, go_toolchain

COMPILES = "package main\n\nfunc main() {}\n"


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module `small` in the place of the cluster's, and an empty cache."""
    folder = tmp_path / "modules/small"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text("module example.com/small\n\ngo 1.24.0\n\nrequire example.com/pinned v1.2.3 // indirect\n")
    (folder / "main.go").write_text(COMPILES)
    monkeypatch.setattr(build, "MODULES", tmp_path / "modules")
    monkeypatch.setattr(build, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(cache, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(build, "PROGRAMS", {"small": build.Program(module="small")})
    return folder


def toolchain(monkeypatch: pytest.MonkeyPatch, directory: Path, script: str) -> list[str]:
    """A `go` that does what the script says; the list gets a line for each build."""
    program, calls = directory / "go", directory / "calls"
    program.write_text(f'#!/bin/sh\n[ "$1" = list ] && echo one && exit 0\necho build >> {calls}\n{script}\n')
    program.chmod(0o755)
    calls.touch()
    monkeypatch.setattr(build, "go", lambda: program)
    return [str(calls)]


WRITES = 'while [ "$1" != -o ]; do shift; done; mkdir -p "$(dirname "$2")"; echo built > "$2"'


def test_a_program_is_built_once_until_its_files_change(modules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (calls,) = toolchain(monkeypatch, tmp_path, WRITES)
    first = build.binary("small")
    assert build.binary("small") == first
    assert Path(calls).read_text().count("build") == 1

    (modules / "main.go").write_text(COMPILES + "// changed\n")
    assert build.binary("small") != first
    assert Path(calls).read_text().count("build") == 2


def test_two_processes_that_need_a_program_build_it_once(
    modules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (calls,) = toolchain(monkeypatch, tmp_path, f"sleep 0.3; {WRITES}")
    threads = [threading.Thread(target=build.binary, args=("small",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Path(calls).read_text().count("build") == 1


def test_a_failed_build_leaves_nothing_and_says_why(modules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toolchain(monkeypatch, tmp_path, "echo 'no required module provides it' >&2; exit 1")
    with pytest.raises(UserError, match="no required module provides it"):
        build.binary("small")
    assert [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"] == []


def test_the_version_is_that_of_the_pinned_module(modules: Path) -> None:
    pinned = build.Program(module="small", pin="example.com/pinned", stamp=("v.full={Version}", "v.minor={Minor}"))
    assert build._version(pinned) == "v1.2.3"
    assert build._flags(pinned)[-1] == "-ldflags=-s -w -X v.full=v1.2.3 -X v.minor=2"


def test_a_pin_that_go_mod_does_not_have_is_refused(modules: Path) -> None:
    with pytest.raises(NotFound, match=r"does not require example.com/other"):
        build._version(build.Program(module="small", pin="example.com/other"))


def test_an_unknown_program_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NotFound, match="kubectl"):
        build.binary("minikube")


@pytest.mark.parametrize("name", list(build.PROGRAMS))
def test_every_module_is_pinned_by_sums(name: str) -> None:
    program = build.PROGRAMS[name]
    module = build.MODULES / program.module
    required = [line for line in (module / "go.mod").read_text().splitlines() if line.startswith("\t") and " v" in line]
    assert bool(required) == (module / "go.sum").exists()
    assert build._version(program).startswith("v") == bool(program.pin)


def test_an_old_go_is_passed_over_for_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "go"
    old.write_text("#!/bin/sh\necho go1.19.8\n")
    old.chmod(0o755)
    wheel = tmp_path / go_toolchain.WHEEL.replace("==", "-") / "go/bin/go"
    wheel.parent.mkdir(parents=True)
    wheel.touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(go_toolchain, "CACHE", tmp_path)
    assert go_toolchain.go() == wheel

    old.write_text("#!/bin/sh\necho go1.24.1\n")
    assert go_toolchain.go() == old

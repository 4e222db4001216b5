"""The contract of `core.blobs.Blobs`, run by every store."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cappuccino.adapters.artifacts import open_blobs
from cappuccino.core.blobs import Blobs
from cappuccino.core.errors import Conflict, InvalidInput, NotFound, RetryLater, UserError


@pytest.fixture(params=["file", "file with a space"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    folder = tmp_path / ("a folder" if " " in request.param else "folder")
    return open_blobs(folder.as_uri())


def test_what_is_put_can_be_read(blobs: Blobs) -> None:
    blobs.put("a/b/c", b"payload")
    assert blobs.get("a/b/c") == b"payload"
    assert blobs.exists("a/b/c")


def test_putting_the_same_bytes_again_is_success(blobs: Blobs) -> None:
    blobs.put("a", b"payload")
    blobs.put("a", b"payload")
    assert blobs.get("a") == b"payload"


def test_putting_other_bytes_is_a_conflict_and_changes_nothing(blobs: Blobs) -> None:
    blobs.put("a", b"payload")
    with pytest.raises(Conflict, match="'a'"):
        blobs.put("a", b"other")
    assert blobs.get("a") == b"payload"


def test_an_empty_payload_is_a_payload(blobs: Blobs) -> None:
    blobs.put("a", b"")
    assert blobs.get("a") == b""
    with pytest.raises(Conflict):
        blobs.put("a", b"x")


def test_replace_writes_over_what_is_there(blobs: Blobs) -> None:
    blobs.replace("a", b"one")
    blobs.replace("a", b"two")
    assert blobs.get("a") == b"two"


def test_reading_an_absent_key_names_it(blobs: Blobs) -> None:
    assert not blobs.exists("x/y")
    with pytest.raises(NotFound, match="'x/y'"):
        blobs.get("x/y")


def test_deleting_is_success_also_when_nothing_is_there(blobs: Blobs) -> None:
    blobs.put("a", b"1")
    blobs.delete("a")
    blobs.delete("a")
    assert not blobs.exists("a")


def test_keys_are_sorted_and_limited_to_the_prefix(blobs: Blobs) -> None:
    for key in ("b/2", "b/1", "b/c/3", "ba/4", "a"):
        blobs.put(key, b"x")
    assert blobs.keys("b/") == ["b/1", "b/2", "b/c/3"]
    assert blobs.keys("b") == ["b/1", "b/2", "b/c/3", "ba/4"]
    assert blobs.keys("") == ["a", "b/1", "b/2", "b/c/3", "ba/4"]
    assert blobs.keys("nothing/") == []


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/../../b", "a/."])
def test_a_key_that_could_leave_the_store_is_refused(blobs: Blobs, key: str) -> None:
    with pytest.raises(InvalidInput, match="artifact key"):
        blobs.put(key, b"x")


def test_of_writers_that_race_one_wins_and_the_others_are_told(blobs: Blobs) -> None:
    outcomes: dict[int, str] = {}
    start = threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        try:
            blobs.put("raced", bytes([number]) * 100_000)
            outcomes[number] = "won"
        except Conflict:
            outcomes[number] = "lost"

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [number for number, outcome in outcomes.items() if outcome == "won"]
    assert len(outcomes) == 8
    assert blobs.get("raced") == bytes([winner]) * 100_000
    assert blobs.keys("") == ["raced"]


def test_a_reader_never_sees_half_of_a_replacement(blobs: Blobs) -> None:
    payloads = [bytes([n]) * 200_000 for n in range(20)]
    blobs.replace("checkpoint", payloads[0])
    writer = threading.Thread(target=lambda: [blobs.replace("checkpoint", payload) for payload in payloads])
    writer.start()
    seen = []
    while writer.is_alive():
        seen.append(blobs.get("checkpoint"))
    writer.join()
    assert all(body in payloads for body in seen)
    assert blobs.get("checkpoint") == payloads[-1]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    payload=st.binary(max_size=2000),
    key=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,10}(/[a-z0-9][a-z0-9._-]{0,10}){0,3}", fullmatch=True),
)
def test_any_bytes_under_any_key_come_back(tmp_path_factory: pytest.TempPathFactory, payload: bytes, key: str) -> None:
    store = open_blobs(tmp_path_factory.mktemp("blobs").as_uri())
    store.put(key, payload)
    assert store.get(key) == payload
    assert store.keys("") == [key]


# --- file:// and s3:// ------------------------------------------------------------------------------


def test_two_processes_that_open_one_folder_see_the_same(tmp_path: Path) -> None:
    open_blobs(tmp_path.as_uri()).put("a", b"1")
    assert open_blobs(tmp_path.as_uri()).get("a") == b"1"


@pytest.mark.parametrize("url", ["ftp://host/path", "folder", "", "file:relative", "file://host/path", "s3:///prefix"])
def test_a_url_that_cannot_be_a_store_is_refused_by_value(url: str) -> None:
    with pytest.raises(InvalidInput, match="artifact URL"):
        open_blobs(url)


def test_a_folder_that_cannot_be_made_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="file"):
        open_blobs((tmp_path / "file").as_uri())


def test_a_place_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    store = open_blobs(tmp_path.as_uri())
    store.put("taken", b"x")
    with pytest.raises(UserError, match="taken/below"):
        store.put("taken/below", b"y")


def test_a_store_that_does_not_answer_is_tried_later() -> None:
    s3 = {"endpoint": "http://127.0.0.1:9", "access_key_id": "id", "secret_access_key": "key", "region": "us-east-1"}
    store = open_blobs("s3://bucket/prefix", s3=s3, retries=0)
    with pytest.raises(RetryLater, match="s3://bucket/prefix"):
        store.put("a", b"x")
    with pytest.raises(RetryLater):
        store.get("a")
    with pytest.raises(RetryLater):
        store.exists("a")
    with pytest.raises(RetryLater):
        store.keys("a/")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_full_disk_is_waited_for_and_says_so(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True)
    try:
        blobs = open_blobs(tmp_path.as_uri())
        with pytest.raises(RetryLater, match="No space left on device: make room"):
            blobs.put("checkpoints/x", b"x" * 200_000)
        blobs.put("checkpoints/y", b"y")
        assert blobs.get("checkpoints/y") == b"y"
    finally:
        subprocess.run(["umount", tmp_path], check=True)

"""The bare API server of the tests: faults leave its data, and its end leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cappuccino.core.processes import started
from hack.cluster.api import Api
from hack.cluster.control_plane import ControlPlane

ROOT = Path(__file__).resolve().parents[3]
CHILD = """
import sys, time
from pathlib import Path
from hack.cluster.control_plane import ControlPlane
with ControlPlane(Path(sys.argv[1])) as plane:
    print(*(process.pid for process in plane._processes.values()), flush=True)
    time.sleep(300)
"""


@pytest.mark.slow
def test_a_killed_part_comes_back_with_its_data(tmp_path: Path) -> None:
    with ControlPlane(tmp_path) as plane:
        api = Api(url=plane.url, ca=plane.ca, token=plane.token)
        before = api.get("/api/v1/namespaces/default")["metadata"]["uid"]
        plane.kill_apiserver()
        with pytest.raises(OSError, match="refused"):
            api.get("/readyz")
        plane.kill_etcd()
        plane.start_etcd()
        plane.start_apiserver()
        assert api.get("/api/v1/namespaces/default")["metadata"]["uid"] == before


@pytest.mark.slow
def test_the_parts_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(started(pid) for pid in pids)
        os.kill(parent.pid, signal.SIGKILL)
    until = time.monotonic() + 10
    while any(started(pid) for pid in pids):
        assert time.monotonic() < until, f"{pids} outlive their parent"
        time.sleep(0.05)

"""The bare API server of the tests: faults leave its data, and its end leaves nothing."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from cappuccino.core.processes import started
from hack.cluster.api import Api, wait
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
    with ControlPlane(tmp_path, controllers=True) as plane:
        api = Api(url=plane.url, ca=plane.ca, token=plane.token)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        before = api.get(account)["metadata"]["uid"]
        plane.kill_apiserver()
        with pytest.raises(OSError, match="refused"):
            api.get("/readyz")
        plane.kill_etcd()
        plane.start_etcd()
        plane.start_apiserver()
        assert api.get(account)["metadata"]["uid"] == before

        request = urllib.request.Request(
            f"{plane.url}{account}", method="DELETE", headers={"Authorization": f"Bearer {plane.token}"}
        )
        urllib.request.urlopen(request, context=ssl.create_default_context(cafile=plane.ca)).close()
        wait("another account", lambda: api.get(account)["metadata"]["uid"] != before, see=tmp_path)  # by the controllers


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

"""Peak memory of a process that trains for one rollout and its update; a process of its own for each figure, on Linux.

    python -m tests.bench.footprint '{"program": "cappuccino_ppo", "tables": {"assets": 20}, "arguments": {"hidden": 128}}'

`program` is a function of tests.bench.learning, `tables` the arguments of `Tables.random`. Answers JSON: peak_mb, imports_mb of
it before there was a market, device_mb on a GPU. The peak is VmHWM: ru_maxrss counts what the parent had before exec.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path


def peak_mb() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1e3


def main(text: str) -> None:
    import torch

    from tests.bench import learning
    from tests.bench.single import Tables

    asked = json.loads(text)
    program, arguments = asked["program"], asked["arguments"]
    if program == "cappuccino_ppo":
        import cappuccino.training.ppo  # noqa: F401 - so that it counts as an import
    else:
        import stable_baselines3  # noqa: F401
    imports_mb = peak_mb()
    getattr(learning, program)(Tables.random(**asked["tables"]), seconds=0.0, repeats=1, **arguments)
    device_mb = torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_initialized() else 0.0
    print(json.dumps({"peak_mb": peak_mb(), "imports_mb": imports_mb, "device_mb": device_mb}))


if __name__ == "__main__":
    main(sys.argv[1])

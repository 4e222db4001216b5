"""The cluster's commands. From the repository's root: python -m hack.cluster --help."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import time
from pathlib import Path

from cappuccino.core.errors import CappuccinoError, NotFound
from hack.cluster.build import PROGRAMS, binary
from hack.cluster.cache import exclusive, say
from hack.cluster.kind import Kind, docker_answers
from hack.cluster.node import PARTS, Node

DIRECTORY = Path(__file__).resolve().parents[2] / "build/cluster"


def main() -> int:
    options = _parse()
    try:
        return _run(options)
    except CappuccinoError as error:
        say(str(error))
        return error.exit_code
    except subprocess.CalledProcessError as error:
        say(f"`{shlex.join(map(str, error.cmd))}` ended with code {error.returncode} (see above)")
        return 1


def _run(options: argparse.Namespace) -> int:
    if options.command == "build":
        for name in options.programs or ("kube", "coredns", "pause", "helm"):
            print(binary(name))
        return 0
    cluster = Kind(DIRECTORY) if docker_answers() else Node(DIRECTORY)
    if options.command == "up":
        return _up(cluster)
    if options.command == "down":
        with exclusive("cluster"):
            cluster.down()
        say("it is gone")
        return 0
    if not cluster.exists():
        raise NotFound("no cluster runs from this checkout: start it with `make cluster`")
    match options.command:
        case "env":
            print(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")
        case "status":
            lines = cluster.report()
            print(*lines, sep="\n")
            return int(any(line.endswith("stopped") for line in lines))
        case "load-image":
            if not options.archive.is_file():
                raise NotFound(f"no file {options.archive}: name an OCI or Docker archive")
            cluster.load_image(options.archive)
        case "start":
            cluster.start(options.part)
        case "stop":
            cluster.stop(options.part)
    return 0


def _up(cluster: Kind | Node) -> int:
    with exclusive("cluster"):
        started = time.monotonic()
        cluster.up()
    say(f"ready after {time.monotonic() - started:.0f} s")
    print(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m hack.cluster", description="A real Kubernetes cluster for tests and trials."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start it, or complete it, and wait until it is ready")
    commands.add_parser("down", help="remove it with everything it made")
    commands.add_parser("env", help="print the line that points kubectl to it")
    commands.add_parser("status", help="one line for each part; fails when one is stopped")
    building = commands.add_parser("build", help="build the programs it needs, once")
    building.add_argument("programs", nargs="*", metavar="PROGRAM", help=", ".join(PROGRAMS))
    loading = commands.add_parser("load-image", help="import an OCI or Docker archive into the node")
    loading.add_argument("archive", type=Path)
    for verb, what in (("stop", "kill a part, as a crash would"), ("start", "start a stopped part")):
        commands.add_parser(verb, help=what).add_argument("part", help=", ".join(PARTS))
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())

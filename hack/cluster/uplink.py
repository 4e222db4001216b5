"""The one cable between a node's network namespace and the machine's: a veth pair, and address translation to the outside.

A node has a slot, 0 to 63. Everything of it on the machine is named by the slot (interface, addresses, the comment of its
iptables rules), and the interface exists exactly as long as the node's network namespace. So a rule whose interface is
gone is left over, and `sweep` can remove it whoever made it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from cappuccino.core.errors import Conflict

SLOTS = range(64)
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


def interface(slot: int) -> str:
    return f"cappuccino{slot}"


def machine_address(slot: int) -> str:
    return f"10.245.{slot}.1"


def node_address(slot: int) -> str:
    return f"10.245.{slot}.2"


def connect(slot: int, process: int) -> None:
    """Lay the cable to the network namespace of the process."""
    name = interface(slot)
    _run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(process))
    _run("ip", "address", "add", f"{machine_address(slot)}/30", "dev", name)
    _run("ip", "link", "set", name, "up")
    for table, chain, match in _rules(slot):
        _run("iptables", "-w", "-t", table, "-I", chain, *match)
    FORWARDING.write_text("1")  # and never back: others may have come to need it


def disconnect(slot: int) -> None:
    subprocess.run(["ip", "link", "delete", interface(slot)], stderr=subprocess.DEVNULL)  # it may have gone with the namespace
    sweep()


def free_slot() -> int:
    for slot in SLOTS:
        if not exists(slot):
            return slot
    raise Conflict(f"{len(SLOTS)} clusters run on this machine: end one with `make cluster-down` in its checkout")


def exists(slot: int) -> bool:
    return Path("/sys/class/net", interface(slot)).exists()


def sweep() -> None:
    """Remove the rules of slots whose interface is gone."""
    if not shutil.which("iptables"):
        return
    for table in ("filter", "nat"):
        listed = subprocess.run(["iptables", "-w", "-t", table, "-S"], capture_output=True, text=True, check=True).stdout
        for rule in orphans(listed, exists):
            _run("iptables", "-w", "-t", table, "-D", *rule)


def orphans(listed: str, lives: Callable[[int], bool]) -> list[list[str]]:
    """The rules (chain, match) of slots that do not live, among those that `iptables -S` lists."""
    rules = [shlex.split(line)[1:] for line in listed.splitlines() if line.startswith("-A ")]
    owners = [re.search(r"--comment cappuccino:(\d+)( |$)", " ".join(rule)) for rule in rules]
    return [rule for rule, owner in zip(rules, owners, strict=True) if owner and not lives(int(owner[1]))]


def _rules(slot: int) -> list[tuple[str, str, list[str]]]:
    """(table, chain, match): out under the machine's address, and the answers back, whatever the FORWARD policy is."""
    name, comment = interface(slot), ["-m", "comment", "--comment", f"cappuccino:{slot}"]
    answers = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]
    return [
        ("nat", "POSTROUTING", ["-s", f"{node_address(slot)}/32", "!", "-o", name, *comment, "-j", "MASQUERADE"]),
        ("filter", "FORWARD", ["-i", name, *comment, "-j", "ACCEPT"]),
        ("filter", "FORWARD", ["-o", name, *answers, *comment, "-j", "ACCEPT"]),
    ]


def _run(*command: str) -> None:
    subprocess.run(command, check=True)

"""What a process reads from its environment, once.

CAPPUCCINO_DATABASE_URL   the record                     (every process)
CAPPUCCINO_ARTIFACTS_URL  file:// or s3://               (ingest, train, validate, trade)
CAPPUCCINO_EXCHANGE_URL   the simulated exchange         (trade; a Trader's venue.url replaces it)
CAPPUCCINO_EXCHANGE_TOKEN secret of the exchange's control endpoints (exchange, trade)
CAPPUCCINO_SECRETS        folder of Secrets, each a folder with the files key_id and secret_key (trade on a real venue)
CAPPUCCINO_REHEARSAL      USD: real venues are not reached at all, the exchange plays each of their accounts with so much cash
CAPPUCCINO_SPEC           what the controller asks for, as JSON
CAPPUCCINO_PORTFOLIOS     the Traders that share the process (trade --portfolios; controllers/pod.py)
CAPPUCCINO_HEALTH         where /healthz and /metrics are served, as 0.0.0.0:8081 (trade; default: a free loopback port)
CAPPUCCINO_STATE          the runner's folder            (runner, command line; default .cappuccino)
CAPPUCCINO_API_SERVER     https:// of Kubernetes, where a person's halt goes (dashboard; without it, it only reads)
CAPPUCCINO_API_SERVER_CA  file with the CA of that           (dashboard; default: what this machine trusts)
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cappuccino.core.errors import InvalidInput

DATABASE_URL = "CAPPUCCINO_DATABASE_URL"
ARTIFACTS_URL = "CAPPUCCINO_ARTIFACTS_URL"
EXCHANGE_URL = "CAPPUCCINO_EXCHANGE_URL"
EXCHANGE_TOKEN = "CAPPUCCINO_EXCHANGE_TOKEN"  # noqa: S105 - the name of a variable
SECRETS = "CAPPUCCINO_SECRETS"
REHEARSAL = "CAPPUCCINO_REHEARSAL"
SPEC = "CAPPUCCINO_SPEC"
HEALTH = "CAPPUCCINO_HEALTH"
STATE = "CAPPUCCINO_STATE"
API_SERVER = "CAPPUCCINO_API_SERVER"
API_SERVER_CA = "CAPPUCCINO_API_SERVER_CA"


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    database_url: str
    artifacts_url: str
    spec: Mapping[str, Any]

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> WorkerSettings:
        """Raises InvalidInput, which names the variable that is missing or unreadable."""
        return cls(
            database_url=required(DATABASE_URL, environment),
            artifacts_url=required(ARTIFACTS_URL, environment),
            spec=_spec(environment.get(SPEC, "{}")),
        )


def required(name: str, environment: Mapping[str, str] = os.environ) -> str:
    value = environment.get(name, "")
    if not value:
        raise InvalidInput(f"{name} is not set: `cappuccino run` sets it for its workers; set it to run one by hand")
    return value


def state_folder(option: Path | None = None) -> Path:
    return (option or Path(os.environ.get(STATE, ".cappuccino"))).resolve()


def health_address(environment: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Host and port; 0 is any free port."""
    host, _, port = environment.get(HEALTH, "127.0.0.1:0").rpartition(":")
    if not host or not port.isdigit():
        raise InvalidInput(f"{HEALTH} is {environment[HEALTH]!r}: write host:port, as 0.0.0.0:8081")
    return host, int(port)


def _spec(text: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{SPEC} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{SPEC} is {type(document).__name__}: it must be a JSON object")
    return document

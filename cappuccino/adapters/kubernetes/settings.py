"""What the release says of the pods of workloads: a YAML file that the chart mounts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from cappuccino.api.meta import Model, explain
from cappuccino.api.study import Quantity, Toleration
from cappuccino.core.errors import InvalidInput


class Images(Model):
    train: str = Field(min_length=1)
    trader: str = Field(min_length=1)


class DatabaseKeys(Model):
    """Keys of the Secret, each with the URL of one role."""

    trial: str = "trial"
    gate: str = "gate"
    trader: str = "trader"
    ingest: str = "ingest"


class Database(Model):
    secret: str = Field(min_length=1)
    keys: DatabaseKeys = DatabaseKeys()


class Artifacts(Model):
    """`claim` is mounted for a file:// URL; `secret` has the variables of an s3:// one."""

    url: str = Field(pattern=r"^(file:///|s3://)")
    claim: str = ""
    secret: str = ""

    @model_validator(mode="after")
    def _claim(self) -> Self:
        if self.url.startswith("file://") and not self.claim:
            raise ValueError(f"url {self.url} needs a claim: name a ReadWriteMany PersistentVolumeClaim, or use s3://")
        return self


class Exchange(Model):
    """`secret` has the key `token`."""

    url: str = ""
    secret: str = ""


class Resources(Model):
    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}


class Programs(Model):
    """Defaults by program, under what a workload asks for."""

    train: Resources = Resources()
    validate_: Resources = Field(default=Resources(), alias="validate")
    trade: Resources = Resources()
    ingest: Resources = Resources()


class PodSettings(Model):
    images: Images
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    service_account_name: str = Field(default="default", min_length=1)
    database: Database
    artifacts: Artifacts
    exchange: Exchange = Exchange()
    environment: dict[str, str] = {}
    programs: Programs = Programs()
    further_portfolio: dict[str, Quantity] = {"cpu": "1m", "memory": "5Mi"}  # of a process, beyond its first; make latency
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    deletion_grace_seconds: int = Field(default=30, ge=1, le=3600)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises InvalidInput, which names the field and its value."""
        try:
            document = yaml.safe_load(path.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise InvalidInput(f"settings of pods {path}: {' '.join(str(error).split())}") from error
        try:
            return cls.model_validate_json(json.dumps(document, default=str), strict=True)
        except ValidationError as error:
            raise InvalidInput(explain(error, cls, source=str(path))) from error

    def resources(self, program: str) -> Resources:
        programs = self.programs
        known = {"train": programs.train, "validate": programs.validate_, "trade": programs.trade, "ingest": programs.ingest}
        return known.get(program, Resources())

"""The five kinds, `cappuccino.dev/v1alpha1`. Manifests are validated here; `crds/` is generated from here."""

from cappuccino.api.dataset import Dataset, DatasetSpec
from cappuccino.api.deployment import Deployment, DeploymentSpec
from cappuccino.api.meta import API_VERSION, GROUP, VERSION, Condition, ObjectMeta, Resource
from cappuccino.api.study import Study, StudySpec
from cappuccino.api.trader import Trader, TraderSpec
from cappuccino.api.trial import Trial, TrialSpec

KINDS: dict[str, type[Resource]] = {
    "Dataset": Dataset,
    "Study": Study,
    "Trial": Trial,
    "Deployment": Deployment,
    "Trader": Trader,
}

__all__ = [
    "API_VERSION",
    "GROUP",
    "KINDS",
    "VERSION",
    "Condition",
    "Dataset",
    "DatasetSpec",
    "Deployment",
    "DeploymentSpec",
    "ObjectMeta",
    "Resource",
    "Study",
    "StudySpec",
    "Trader",
    "TraderSpec",
    "Trial",
    "TrialSpec",
]

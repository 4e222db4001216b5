"""Names of features. The catalogue that computes them is in `features`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """One column per symbol: `name` is an entry of the feature catalogue, `params` its periods."""

    name: str
    params: tuple[tuple[str, int | float], ...] = ()

    @property
    def label(self) -> str:
        return self.name + "".join(f"_{value:g}" for _, value in self.params)

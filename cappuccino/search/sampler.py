"""The port to what proposes the next trial: a function of the record alone. A proposal that was lost in a crash is made again,
the same, from the same rows and the same seed, which the caller derives from the Study's seed and the trial's number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cappuccino.search.space import Space
from cappuccino.search.trials import TrialRow


class Sampler(Protocol):
    def sample(self, history: Sequence[TrialRow], space: Space, seed: int) -> dict[str, str]:
        """One value per dimension of `space`, as text. Deterministic. May take a while: call it in a thread.

        Rows of another space (an earlier phase) teach nothing; those that still run are expected to be bad, so that
        proposals made at the same time differ.
        """
        ...

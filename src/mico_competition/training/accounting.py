"""What a private run costs in epsilon, and the noise that a target epsilon takes.

On Opacus' accountant, imported when it is first asked: whoever only reads of a mechanism does not
need it.  Numbers only: no data, no model, no generator.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

# The accountant's error: its bound is an upper one, and the true epsilon lies at most twice this
# far below it.
EPS_ERROR = 0.1


@dataclass(frozen=True)
class Mechanism:
    """What the accountant needs: a Poisson-subsampled Gaussian, `num_steps` times.

    Attributes:
        noise_multiplier: sigma > 0, the noise's standard deviation in units of max_grad_norm.
        sample_rate: q in (0, 1], the probability that a record is in a batch.
        num_steps: number of steps, 1 or more.
    """

    noise_multiplier: float
    sample_rate: float
    num_steps: int

    @lru_cache(maxsize=256)  # noqa: B019 (frozen and small; a fleet asks for the same few)
    def epsilon(self, target_delta: float) -> float:
        """Upper bound of epsilon at `target_delta`, at most 2 EPS_ERROR above the true one.

        Numerical composition of privacy loss random variables: Gopi, Lee and Wutschitz,
        NeurIPS 2021, arXiv 2106.02848.
        """
        from opacus.accountants import PRVAccountant

        accountant = PRVAccountant()
        accountant.history = [(self.noise_multiplier, self.sample_rate, self.num_steps)]
        with _quiet_accountant():
            return float(accountant.get_epsilon(delta=target_delta, eps_error=EPS_ERROR))

    @classmethod
    @lru_cache(maxsize=256)
    def for_target(
        cls, *, target_epsilon: float, target_delta: float, sample_rate: float, num_steps: int
    ) -> Mechanism:
        """The mechanism with the least noise whose epsilon is at most `target_epsilon`.

        Raises:
            ValueError: if the target is within the accountant's error.
        """
        if not target_epsilon > 2 * EPS_ERROR:
            raise ValueError(
                f"Expected target_epsilon={target_epsilon} > {2 * EPS_ERROR}: the accountant's "
                "error alone takes that much."
            )
        from opacus.accountants.utils import get_noise_multiplier

        with _quiet_accountant():
            noise_multiplier = get_noise_multiplier(
                target_epsilon=target_epsilon,
                target_delta=target_delta,
                sample_rate=sample_rate,
                steps=num_steps,
                accountant="prv",
                eps_error=EPS_ERROR,
            )
        return cls(float(noise_multiplier), sample_rate, num_steps)


@contextmanager
def _quiet_accountant() -> Iterator[None]:
    """Integrating a truncated PRV warns of round-off that its error bound already counts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

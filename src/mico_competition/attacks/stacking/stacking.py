"""A stack: a regression on features of shadow models, which scores the targets.

Shadows serve as pseudo-targets, each calibrated by the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mico_competition.attacks.stacking.calibrator import Calibrator, Form
from mico_competition.attacks.stacking.logistic import INVERSE_PENALTY, Logistic, fit_logistic


class Stack:
    """Features at the training points of shadows and at the points to score of targets.

    Args:
        calibrator: for the signals that are added.
        targets: int64[t], rows of the signals.
        columns: int64[s, r], the training points of each shadow.
        asked: int64[t, k], the points to score of each target.

    Attributes:
        labels: bool[s r], membership of the shadows at `columns`.
    """

    def __init__(
        self, calibrator: Calibrator, targets: np.ndarray, columns: np.ndarray, asked: np.ndarray
    ) -> None:
        self.calibrator, self.targets = calibrator, targets
        self.columns, self.asked = columns, asked
        self.labels: np.ndarray = np.take_along_axis(calibrator.is_member, columns, axis=1).ravel()
        self._shadow: list[np.ndarray] = []
        self._target: list[np.ndarray] = []

    def add(self, shadow: np.ndarray, target: np.ndarray) -> None:
        """Add one feature: float[s, points] and float[t, points]."""
        self._shadow.append(np.take_along_axis(shadow, self.columns, axis=1).ravel())
        self._target.append(np.take_along_axis(target, self.asked, axis=1))

    def add_signal(
        self,
        signal: np.ndarray,
        forms: Sequence[Form] = (Calibrator.log_ratio, Calibrator.standard_score),
    ) -> None:
        """Add forms of a signal float[models, points], by default both."""
        for form in forms:
            self.add(
                form(self.calibrator, signal, self.calibrator.shadows),
                form(self.calibrator, signal, self.targets),
            )

    def shadow_features(self) -> np.ndarray:
        """float[s r, features], the features of the training points."""
        return np.stack(self._shadow, axis=1)

    def target_features(self) -> np.ndarray:
        """float[t, k, features]."""
        return np.stack(self._target, axis=-1)

    def fit(self, inverse_penalty: float = INVERSE_PENALTY) -> Logistic:
        """The fitted regression; weights in the order of the features."""
        return fit_logistic(self.shadow_features(), self.labels, inverse_penalty)

    def scores(self, inverse_penalty: float = INVERSE_PENALTY) -> np.ndarray:
        """float64[t, k], fitted log odds at the points to score."""
        return self.fit(inverse_penalty).scores(self.target_features())

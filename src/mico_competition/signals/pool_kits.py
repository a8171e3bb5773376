"""Builds the models of a pool from trained classifiers, whichever kind they are of."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from mico_competition.signals.pool_arguments import as_gives, check_counts
from mico_competition.signals.pool_build import Kit
from mico_competition.signals.pool_checks import check_membership
from mico_competition.signals.pool_estimators import EstimatorKit, count, is_estimator
from mico_competition.signals.pool_run import ModuleKit
from mico_competition.support.progress import quiet


def kit_of_models(
    models: Sequence[Any],
    inputs: Any,
    labels: Any,
    membership: Any,
    progress: bool,
    **options: Any,
) -> Kit:
    """The kit of torch modules or scikit-learn classifiers, run on all records.

    Args:
        models, inputs, labels, membership, progress: as in `ModelPool.from_models`.
        options: of `ModuleKit.of`.

    Raises:
        ValueError: as `ModelPool.from_models`; before anything is run, if it can be known then.
    """
    gives = as_gives(models)
    check_counts(inputs, labels)
    check_membership(membership, len(gives), count(labels))
    with nullcontext() if progress else quiet():
        first = gives[0]()
        if is_estimator(first):
            return EstimatorKit.of([first, *(give() for give in gives[1:])], inputs, labels)
        if not hasattr(first, "parameters"):
            raise ValueError(
                "Expected model 0 to be a torch module, or a classifier with predict_proba, got "
                f"{type(first).__name__}."
            )
        return ModuleKit.of(gives, first, inputs, labels, **options)

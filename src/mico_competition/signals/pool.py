"""`ModelPool`: models, records, and who was trained on what; the start of every attack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from mico_competition.competition.table import PHASE_NAMES
from mico_competition.signals.fleet import OWN, Fleet
from mico_competition.signals.pool_arguments import choice, refuse_known
from mico_competition.signals.pool_build import Kit, LossKit, OutputKit
from mico_competition.signals.pool_checks import check_membership
from mico_competition.signals.pool_kits import kit_of_models
from mico_competition.signals.pool_signals import public_signal
from mico_competition.signals.pool_source import Joined, ModelsSource, own_fleet, refuse_twins
from mico_competition.signals.source import Source
from mico_competition.support.counts import count_of
from mico_competition.support.files import PathLike

if TYPE_CHECKING:
    import torch

    from mico_competition.audit.claims import PrivacyClaim


class ModelPool:
    """Models and records, with the membership of each record in each model's training set.

    Make one with `from_logits`, `from_probabilities`, `from_losses`, `from_models` or `open`.
    `mico.evaluate` attacks each of its models with the others as shadow models, and `mico.attack`
    a model whose members are not known.

    Models whose membership is known at all records are shadow models.  `mico.evaluate` attacks them
    and those whose membership is known at some records, and measures scores where it is known.
    Any model can be attacked with `mico.attack`.

    Attributes:
        source: what the engine of attacks reads: signals, logits, models and the fleet.
        holds: what there is of each model: "logits", "probabilities", "losses" or "models".
        claim: the `PrivacyClaim` of each model, where it is known (`mico.train_shadows` sets it);
            `Results.plot(limits=pool.claim)` draws what it permits.
        knows_training_sets: whether attacks know the targets' members but for the points to score,
            as in the challenge of DP distinguishers; False for models of your own.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> membership = rng.random((8, 50)) < 0.5
    >>> labels = rng.integers(0, 3, 50)
    >>> logits = rng.normal(size=(8, 50, 3)) + 2 * membership[..., None] * np.eye(3)[labels]
    >>> ModelPool.from_logits(logits, labels, membership)
    ModelPool(8 models, 50 records, 3 classes, members known of all models; holds logits)
    """

    def __init__(
        self,
        *,
        source: Source,
        holds: str,
        kit: Kit | None = None,
        wide: Callable[[], Source] | None = None,
        knows_training_sets: bool = False,
    ) -> None:
        self.source = source
        self.holds, self._kit, self._open_wide = holds, kit, wide
        self.claim: PrivacyClaim | None = None
        self.knows_training_sets = knows_training_sets

    @classmethod
    def from_logits(cls, logits: Any, labels: Any, membership: Any) -> ModelPool:
        """A pool of models that are known by their logits at all records.

        Args:
            logits: float[models, records, classes], the outputs before the softmax; numpy array or
                tensor.  It is not copied.
            labels: int[records], the true class of each record, 0..classes - 1.
            membership: bool[models, records], True where the model was trained on the record.
                Where that is not known: -1 in an integer array, NaN in a float array.

        Returns:
            The pool; attacks that need weights or new queries cannot run on it.

        Raises:
            ValueError: naming the argument, its shape and what was expected; if two models have
                the same outputs.

        >>> import numpy as np
        >>> logits = np.random.default_rng(0).normal(size=(4, 6, 2))
        >>> membership = np.arange(24).reshape(4, 6) % 2 == 0
        >>> len(ModelPool.from_logits(logits, [0, 1, 1, 0, 1, 0], membership))
        4
        """
        return cls._of_kit(OutputKit.of("logits", logits, labels), membership)

    @classmethod
    def from_probabilities(cls, probabilities: Any, labels: Any, membership: Any) -> ModelPool:
        """A pool of models that are known by their class probabilities at all records.

        A probability of exactly 0 counts as half the smallest positive one in the array, so that
        its logarithm is finite.

        Args:
            probabilities: float[models, records, classes], in [0, 1], with sum 1 over the classes.
            labels: as in `from_logits`.
            membership: as in `from_logits`.

        Returns:
            The pool, with the same attacks as one of logits.  Logits are better where you have
            them: a probability near 1 has few digits left.

        Raises:
            ValueError: as `from_logits`; if the rows do not sum to 1.

        >>> ModelPool.from_probabilities(
        ...     [[[0.9, 0.1], [0.4, 0.6]], [[0.5, 0.5], [0.2, 0.8]]], [0, 1], [[1, 0], [0, 1]]
        ... ).signal("confidence")
        array([[0.9, 0.6],
               [0.5, 0.8]])
        """
        return cls._of_kit(OutputKit.of("probabilities", probabilities, labels), membership)

    @classmethod
    def from_losses(cls, losses: Any, membership: Any, labels: Any = None) -> ModelPool:
        """A pool of models of which only the loss at each record is known.

        Loss, confidence and logit of the true class follow from the loss; attacks on these run
        (loss, LiRA, RMIA, calibrated losses, empirical Bayes, ...).

        Args:
            losses: float[models, records], the cross-entropy -log p_y >= 0, in nats.  Other losses
                serve too if a smaller one means a better fit, such as the mean loss over the
                tokens of a text.
            membership: as in `from_logits`.
            labels: int[records], for attacks that treat classes apart; by default all are 0.

        Returns:
            The pool.

        Raises:
            ValueError: as `from_logits`; on negative losses.

        >>> pool = ModelPool.from_losses([[0.1, 2.3], [1.2, 0.4]], [[1, 0], [0, 1]])
        >>> pool.signal("loss")
        array([[0.1, 2.3],
               [1.2, 0.4]])
        """
        if getattr(labels, "ndim", 1) == 2 and getattr(membership, "ndim", 2) == 1:
            raise ValueError(
                f"Expected labels of shape [records], got {tuple(labels.shape)}: the order of "
                "from_losses is losses, membership, labels."
            )
        return cls._of_kit(LossKit.of(losses, labels), membership)

    @classmethod
    def from_models(
        cls,
        models: Sequence[Any],
        inputs: Any,
        labels: Any,
        membership: Any,
        *,
        device: torch.device | str | None = None,
        batch_size: int | None = None,
        cache: PathLike | None = None,
        progress: bool = True,
        base_model: torch.nn.Module | None = None,
    ) -> ModelPool:
        """A pool of trained classifiers, which are run on all records now.

        Torch modules run in eval mode on copies: yours keep their mode, device and weights.  White
        box attacks read the modules again later, so keep their weights unchanged.

        Args:
            models: torch modules that return logits float[batch, classes], or an object that has
                them as `logits`; scikit-learn classifiers with `predict_proba`; or functions
                without arguments that return such a model, which then is in memory only while it
                is needed.
            inputs: the records as the models take them: a tensor or array [records, ...]; for
                models that take arguments by name, such as text models, a dict of tensors
                [records, ...], as a tokenizer returns it.
            labels: int[records], the true classes; for scikit-learn as in its `classes_`.
            membership: as in `from_logits`.
            device: where torch modules run; by default CUDA if there is one.
            batch_size: records in one forward pass; by default as many as suit the device.
            cache: a folder that keeps the outputs, keyed by weights and records; None keeps
                nothing on disk.
            progress: whether to show a progress bar.
            base_model: the module that all torch modules were fine-tuned from, for white-box
                attacks, if you know it.

        Returns:
            The pool.  All attacks run on torch modules, those on outputs on scikit-learn
            classifiers.

        Raises:
            ValueError: as `from_logits`; naming a model whose outputs are not logits of as many
                classes as the others' or are not finite.

        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> models = [torch.nn.Linear(4, 3) for _ in range(4)]
        >>> membership = torch.rand(4, 20) < 0.5
        >>> ModelPool.from_models(models, torch.randn(20, 4), torch.arange(20) % 3, membership)
        ModelPool(4 models, 20 records, 3 classes, members known of all models; holds models)
        """
        options = {"device": device, "batch_size": batch_size, "cache": cache}
        kit = kit_of_models(models, inputs, labels, membership, progress, **options)
        return cls._of_kit(kit, membership, base_model)

    @classmethod
    def open(
        cls,
        folder: PathLike,
        scenario: str | None = None,
        dataset_dir: Any = ".",
        *,
        phases: Sequence[str] = PHASE_NAMES,
        records: np.ndarray | str = "challenge",
        knowledge: str | None = None,
        device: torch.device | str | None = None,
        cache: PathLike | None = None,
        download: bool = False,
        base_model: PathLike | None = None,
    ) -> ModelPool:
        """A pool of the models of one scenario in a challenge folder, with its cache on disk.

        Train models are the shadow models and what `mico.evaluate` measures, at their challenge
        points, as `mico evaluate FOLDER` does.  Dev and final models can be attacked.

        Args:
            folder: such as "purchase100": as downloaded, released or trained.
            scenario: such as "purchase100_lo"; may be left out if the folder holds only one.
            dataset_dir: the folder of the datasets, or the task's whole dataset.
            phases: "train", "dev" and "final", or some of them.
            records: "challenge" for the union of all models' challenge points, "all" for the whole
                dataset, or int[records], indices into the dataset.
            knowledge: "standard" or "distinguisher"; by default what the scenario discloses.
            device: where models run; by default CUDA if there is one.
            cache: the folder of the signals; by default `signals` in `$MICO_CACHE`.
            download: fetch the dataset if it is not in `dataset_dir`.
            base_model: of text models, the folder or Hub name of the one that they were fine-tuned
                from, for white-box attacks; None if it is not known.

        Returns:
            The pool; a row for each model, train models first.

        Raises:
            ValueError: if the folder holds no models of the scenario; as `signals.open_signals`.

        >>> ModelPool.open("nowhere", "purchase100_lo")
        Traceback (most recent call last):
        ValueError: There is no folder nowhere: pass that of a challenge, such as purchase100.
        """
        from mico_competition.signals.pool_folder import open_folder

        found = open_folder(
            folder,
            scenario,
            dataset_dir,
            records=records,
            knowledge=knowledge,
            download=download,
            phases=phases,
            device=device,
            cache=cache,
            base_model=base_model,
        )
        return cls(**found)

    @classmethod
    def _of_kit(cls, kit: Kit, membership: Any, base: Any = None) -> ModelPool:
        known = check_membership(membership, len(kit.models), len(kit.labels))
        source = ModelsSource(own_fleet(kit.labels, known), kit.models, kit.data, base)
        refuse_twins(source)
        return cls(source=source, holds=kit.holds, kit=kit)

    @property
    def fleet(self) -> Fleet:
        """The rows and columns of the pool, as attacks see them."""
        return self.source.fleet

    @property
    def membership(self) -> np.ndarray:
        """int8[models, records]: 1 for a member, 0 for a non-member, -1 where it is not known."""
        return _read_only(self.fleet.known_membership)

    @property
    def labels(self) -> np.ndarray:
        """int64[records], the true class of each record."""
        return _read_only(self.fleet.labels)

    @property
    def known(self) -> np.ndarray:
        """int64[k], the rows of the models whose membership is known at all records."""
        return self.fleet.rows("train")

    @property
    def shape(self) -> tuple[int, int]:
        """(models, records)."""
        models, records = self.membership.shape
        return models, records

    @property
    def scenario(self) -> str | None:
        """The scenario of a challenge folder; None for models of no competition."""
        return None if self.fleet.scenario == OWN else self.fleet.scenario

    @cached_property
    def wide(self) -> Source:
        """The source with the signals of all records of the dataset, for white-box attacks."""
        return self.source if self._open_wide is None else self._open_wide()

    def __len__(self) -> int:
        return len(self.fleet)

    def signal(self, name: str) -> np.ndarray:
        """One number of each model at each record.

        Args:
            name: "loss" (cross-entropy in nats), "negative_loss", "confidence" (the probability of
                the true class, in [0, 1]), "logit" (log p_y / (1 - p_y)), "entropy",
                "modified_entropy", or "log_gradient_norm" (of the loss, over all weights).

        Returns:
            float64[models, records].

        Raises:
            ValueError: on an unknown name; on a signal that does not follow from what the pool
                holds.

        >>> ModelPool.from_losses([[0.5, 2.0]], [[1, 0]]).signal("negative_loss")
        array([[-0.5, -2. ]])
        """
        return public_signal(self.source, name)

    def select(self, models: Any = None, records: Any = None) -> ModelPool:
        """A pool of some of the models and records.

        Args:
            models: int[k], bool[models] or a slice; by default all models.
            records: int[k], bool[records] or a slice; by default all records.

        Returns:
            The pool, in the order that was asked for.

        Raises:
            ValueError: if an index is out of range or occurs twice; for the records of a challenge
                folder, whose models have challenge points of their own.

        >>> pool = ModelPool.from_losses([[0.5, 2.0], [1.5, 0.1]], [[1, 0], [0, 1]])
        >>> pool.select(models=[1]).signal("loss")
        array([[1.5, 0.1]])
        """
        rows = choice("models", models, self.shape[0])
        columns = choice("records", records, self.shape[1])
        if self._kit is None:
            raise ValueError(
                "The models of a challenge folder have challenge points of their own: open the "
                "folder with phases= or records= instead of selecting."
            )
        known = self.membership[np.ix_(rows, columns)]
        kit = self._kit.at(rows, columns)
        base = getattr(self.source, "base", None)
        source = ModelsSource(own_fleet(kit.labels, known), kit.models, kit.data, base)
        pool = ModelPool(source=source, holds=self.holds, kit=kit)
        pool.claim = self.claim
        return pool

    def with_targets(self, target: Any) -> tuple[Source, np.ndarray, bool]:
        """The pool's source with further models, their rows, and whether there may be several."""
        if self._kit is None:
            raise ValueError(
                "Expected target to be the row of a model of the challenge folder in the pool: "
                "pool.fleet.folders names them in order."
            )
        models, several = self._kit.targets(target)
        joined = Joined(self.source, models)
        rows = len(self) + np.arange(len(models))
        refuse_known(joined, rows)
        return joined, rows, several

    def __repr__(self) -> str:
        return f"ModelPool({self._summary()})"

    def _repr_html_(self) -> str:
        return f"<b>ModelPool</b>: {escape(self._summary())}"

    def _summary(self) -> str:
        models, records = self.shape
        known = len(self.known)
        whose = "all models" if known == models else f"{known} of them"
        parts = [count_of(models, "model"), count_of(records, "record")]
        if self._kit is not None and self._kit.classes:
            parts.append(f"{self._kit.classes} classes")
        if self.scenario is not None:
            parts.insert(0, self.scenario)
        return f"{', '.join(parts)}, members known of {whose}; holds {self.holds}"


def _read_only(values: np.ndarray) -> np.ndarray:
    view = values.view()
    view.setflags(write=False)
    return view

"""Makes a SYNTHETIC dataset in the form of Purchase-100, for tests and measurements without it.

    python -m mico_competition.data.synthetic DEST --records 197324 --seed 0

writes DEST/purchase100/dataset_purchase.  Results on it say nothing about the real dataset.  Like
Purchase-100, it holds baskets of products (here Bernoulli draws from a low-rank model of tastes)
with labels from k-means with 100 clusters.  `make_baskets` returns baskets of other shapes as
arrays.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mico_competition.support.command_line import Parser, run_command
from mico_competition.support.files import PathLike, written_aside

FEATURES = 600
RANK = 32
# With these values 17 % of the features are ones, and the clusters overlap so much that 2022's
# MLP, trained on 15,000 records, classifies 86 % of other records correctly.
PROTOTYPE_SCALE = 0.8
TASTE_SCALE = 0.8
EVENNESS = 3.0  # the Dirichlet parameter of the shares of the kinds of shopper
POPULARITY = (-2.15, 0.9)  # the mean and deviation of a product's log odds

_BLOCK = 8192
_FIT_RECORDS = 30_000


def make_synthetic_purchase(
    path: PathLike, num_records: int, seed: int = 0, num_classes: int = 100
) -> Path:
    """Write a synthetic table in the form of `dataset_purchase`.

    Args:
        path: the file to write.
        num_records: lines, at least `num_classes`.
        seed: the same seed gives the same file.
        num_classes: clusters, 1 to 100.

    Returns:
        `path`: lines of a label from 1 to `num_classes` and 600 zeros and ones.

    Raises:
        ValueError: if `num_records` or `num_classes` is out of range.
    """
    if not 1 <= num_classes <= 100:
        raise ValueError(f"Expected num_classes={num_classes} from 1 to 100.")
    if num_records < num_classes:
        raise ValueError(f"Expected num_records={num_records} >= num_classes={num_classes}.")
    packed, labels = make_baskets(num_records, seed, num_classes)
    with written_aside(path) as aside, open(aside, "wb") as file:
        for start in range(0, num_records, _BLOCK):
            part = slice(start, start + _BLOCK)
            file.write(_lines(np.unpackbits(packed[part], axis=1), labels[part] + 1))
    return Path(path)


def make_baskets(
    num_records: int,
    seed: int,
    num_classes: int,
    *,
    features: int = FEATURES,
    prototype_scale: float = PROTOTYPE_SCALE,
) -> tuple[np.ndarray, np.ndarray]:
    """Make synthetic baskets in memory.

    Args:
        num_records: the number of baskets, at least `num_classes`.
        seed: the same seed gives the same baskets.
        num_classes: the number of kinds of shopper, and of clusters.
        features: the number of products, a multiple of 8.
        prototype_scale: how far apart the kinds of shopper are.

    Returns:
        Packed baskets, uint8 [num_records, features / 8], and labels, int64 [num_records].
    """
    blocks = list(_baskets(num_records, seed, num_classes, features, prototype_scale))
    packed = np.concatenate([block for block, _ in blocks])
    kinds = np.concatenate([kinds for _, kinds in blocks])
    model = _clusters(packed[:_FIT_RECORDS], kinds[:_FIT_RECORDS], seed, num_classes)
    parts = [packed[start : start + _BLOCK] for start in range(0, num_records, _BLOCK)]
    labels = [model.predict(np.unpackbits(part, axis=1).astype(np.float32)) for part in parts]
    return packed, np.concatenate(labels).astype(np.int64)


def _baskets(
    num_records: int, seed: int, num_classes: int, features: int, prototype_scale: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of packed baskets, uint8 [k, features / 8], with their kinds of shopper, [k]."""
    generator = np.random.default_rng(seed)
    loadings = generator.standard_normal((RANK, features), np.float32) / np.float32(RANK**0.5)
    popularity = generator.normal(*POPULARITY, features).astype(np.float32)
    prototypes = prototype_scale * generator.standard_normal((num_classes, RANK), np.float32)
    shares = generator.dirichlet(np.full(num_classes, EVENNESS))
    for start in range(0, num_records, _BLOCK):
        count = min(_BLOCK, num_records - start)
        kinds = generator.choice(num_classes, count, p=shares)
        tastes = TASTE_SCALE * generator.standard_normal((count, RANK), np.float32)
        odds = np.exp((prototypes[kinds] + tastes) @ loadings + popularity)
        draws = generator.random((count, features), np.float32)
        yield np.packbits(draws < odds / (1 + odds), axis=1), kinds


def _clusters(packed: np.ndarray, kinds: np.ndarray, seed: int, num_classes: int) -> Any:
    """Run k-means on a sample of the baskets; its centres then label all baskets.

    It starts from the means of the kinds of shopper.  If it started from single records, a dozen
    clusters would keep only that record.
    """
    from sklearn.cluster import MiniBatchKMeans

    sample = np.unpackbits(packed, axis=1).astype(np.float32)
    members = np.eye(num_classes, dtype=np.float32)[kinds]
    overall = sample.mean(axis=0)  # is added to each kind as one record, as some kinds have none
    means = (members.T @ sample + overall) / (members.sum(axis=0)[:, None] + 1)
    model = MiniBatchKMeans(
        num_classes,
        init=means,
        n_init=1,
        batch_size=4096,
        max_iter=8,
        max_no_improvement=None,  # a fixed number of steps, which rounding cannot change
        reassignment_ratio=0,
        random_state=seed % 2**32,
    )
    return model.fit(sample)


def _lines(bits: np.ndarray, labels: np.ndarray) -> bytes:
    """Lines of CSV for features uint8 [k, 600] and labels 1..100."""
    tails = np.full((len(bits), 2 * FEATURES + 1), ord(","), np.uint8)
    tails[:, 1::2] = bits + ord("0")
    tails[:, -1] = ord("\n")
    return b"".join(
        b"%d" % label + tail.tobytes() for label, tail in zip(labels.tolist(), tails, strict=True)
    )


def main() -> int:
    """Run the command above."""
    parser = Parser(
        prog="python -m mico_competition.data.synthetic",
        description="Write a synthetic table in the form of Purchase-100.",
    )
    parser.add_argument("dest", type=Path, help="the folder to hold purchase100/dataset_purchase")
    parser.add_argument("--records", type=int, default=197_324)
    parser.add_argument("--seed", type=int, default=0)

    def run(args: argparse.Namespace) -> None:
        path = args.dest / "purchase100" / "dataset_purchase"
        made = make_synthetic_purchase(path, args.records, args.seed)
        print(f"{made}: {args.records:,} SYNTHETIC records (seed {args.seed}), not Purchase-100's.")

    parser.set_defaults(run=run)
    return run_command(parser, None)


if __name__ == "__main__":
    sys.exit(main())

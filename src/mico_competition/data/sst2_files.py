"""Reads SST-2 from GLUE's tab-separated files, or from the dataset of Hugging Face.

Sentences keep their trailing space, as in both sources.  A local copy in either form is read
without the network; the package `datasets` is used only without a local copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mico_competition.data.downloads import DownloadError, MissingDataError
from mico_competition.support.extras import install
from mico_competition.support.files import PathLike
from mico_competition.support.untrusted import check_file, read_limited

HUB_NAME = ("nyu-mll/glue", "sst2")
HEADER = "sentence\tlabel"
MAX_BYTES = 1 << 30
MAX_ROWS = 20_000_000
SPLITS = (("train", "train.tsv"), ("validation", "dev.tsv"))


class Sentences(NamedTuple):
    """The sentences of one split or of both: three lists of equal length."""

    sentences: list[str]
    labels: list[int]
    idx: list[int]

    def then(self, others: Sentences) -> Sentences:
        """These sentences followed by `others`."""
        return Sentences(
            self.sentences + others.sentences, self.labels + others.labels, self.idx + others.idx
        )


def read_sst2(dataset_dir: PathLike | None, download: bool) -> Sentences:
    """Read the training sentences, then those for validation; `idx` starts at 0 in each.

    Args:
        dataset_dir: a folder with `train.tsv` and `dev.tsv` (or with `SST-2` or `sst2` that holds
            them), or with Hugging Face's `sst2/train-*.parquet` and `sst2/validation-*.parquet`.
            None: the dataset of Hugging Face, from its cache or the network.
        download: get the dataset of Hugging Face if `dataset_dir` holds no copy.

    Raises:
        MissingDataError: if there is no copy and `download` is false.
        DownloadError: if the dataset of Hugging Face cannot be loaded.
        ValueError: if a file is damaged; the message names the line.
    """
    splits = None if dataset_dir is None else _local(Path(dataset_dir))
    if splits is None:
        if dataset_dir is not None and not download:
            raise MissingDataError(
                f"There is no SST-2 in {dataset_dir}: put GLUE's train.tsv and dev.tsv there, or "
                "give no folder to use the copy of Hugging Face."
            )
        splits = _from_hub()
    train, validation = splits
    return train.then(validation)


def _local(root: Path) -> list[Sentences] | None:
    """Both splits of the first copy found below `root`, or None."""
    for folder in (root, root / "SST-2", root / "sst2"):
        paths = [folder / name for _, name in SPLITS]
        if any(path.is_file() for path in paths):
            return [read_tsv(path) for path in paths]
    for folder in (root, root / "sst2"):
        shards = [sorted(folder.glob(f"{split}-*.parquet")) for split, _ in SPLITS]
        if any(shards):
            return [_read_parquet(paths, folder, SPLITS[i][0]) for i, paths in enumerate(shards)]
    return None


def read_tsv(path: Path) -> Sentences:
    """Read one of GLUE's files: a header, then lines of a sentence, a tab and 0 or 1.

    Quotes have no special meaning, and only a line feed ends a line.
    """
    if not path.is_file():
        raise MissingDataError(f"There is no {path}: put GLUE's SST-2 there as a whole.")
    try:
        text = read_limited(path, MAX_BYTES, "a file of SST-2", "fetch it anew")
        lines = text.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at byte {error.start:,}: fetch it anew.") from error
    if lines[0].rstrip("\r") != HEADER:
        raise ValueError(
            f"{path}, line 1: {lines[0][:60]!r} is not the header {HEADER!r}; fetch it anew."
        )
    sentences, labels = [], []
    for number, line in enumerate(lines[1:], start=2):
        if line in ("", "\r"):
            continue
        fields = line.rstrip("\r").split("\t")
        if len(fields) != 2 or fields[1] not in ("0", "1"):
            raise ValueError(
                f"{path}, line {number:,}: {line[:60]!r} is not a sentence, a tab and 0 or 1; "
                "fetch it anew."
            )
        sentences.append(fields[0])
        labels.append(int(fields[1]))
    return _checked(sentences, labels, range(len(labels)), path)


def _read_parquet(paths: list[Path], folder: Path, split: str) -> Sentences:
    """Read one split from Hugging Face's parquet files, of which there may be several."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"Reading {folder} needs pyarrow: {install('pyarrow')}.") from error
    if not paths:
        raise MissingDataError(f"{folder} lacks {split}-*.parquet: fetch the dataset as a whole.")
    whole = Sentences([], [], [])
    for path in paths:
        try:
            check_file(path, MAX_BYTES, "a file of SST-2", "fetch it anew")
            columns = _table(path).to_pydict()
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{path} is damaged ({error}): fetch it anew.") from error
        whole = whole.then(_from_columns(columns, path))
    return whole


def _table(path: Path) -> Any:
    """The columns of a parquet file; ValueError if it unpacks to more than the limits.

    Sentences are read in dictionary form until their total length is known, because a few bytes
    may repeat a long sentence any number of times.
    """
    import pyarrow.compute
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path, read_dictionary=["sentence"]) as file:
        metadata = file.metadata
        groups = [metadata.row_group(i) for i in range(min(metadata.num_row_groups, MAX_ROWS))]
        size = sum(group.total_byte_size for group in groups)
        if metadata.num_rows > MAX_ROWS or size > MAX_BYTES:
            raise ValueError(f"{path} unpacks to {metadata.num_rows:,} rows, {size:,} bytes.")
        table = file.read(columns=list(_COLUMNS))
    for column in table.column("sentence").chunks if "sentence" in table.column_names else ():
        lengths = pyarrow.compute.binary_length(column.dictionary)
        total = pyarrow.compute.sum(lengths.take(column.indices)).as_py() or 0
        if total > MAX_BYTES:
            raise ValueError(f"{path} unpacks to {total:,} bytes of text.")
    return table


def _from_hub() -> list[Sentences]:
    """Both splits of Hugging Face's dataset."""
    fix = "give a folder with GLUE's train.tsv and dev.tsv instead"
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"Fetching SST-2 needs datasets: {install('datasets')}, or {fix}."
        ) from error
    try:
        both = datasets.load_dataset(*HUB_NAME)
    except Exception as error:  # the hub's client fails in the ways of several libraries
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DownloadError(
            f"Could not load {'/'.join(HUB_NAME)} from Hugging Face ({reason}): {fix}."
        ) from error
    return [_from_columns(both[split][:], "/".join(HUB_NAME)) for split, _ in SPLITS]


_COLUMNS = ("sentence", "label", "idx")


def _from_columns(columns: Any, source: Any) -> Sentences:
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise ValueError(f"{source} lacks the column {missing[0]!r}: fetch it anew.")
    sentences, labels, idx = (columns[name] for name in _COLUMNS)
    return _checked(sentences, labels, idx, source)


def _checked(
    sentences: Sequence[str], labels: Sequence[int], idx: Sequence[int], source: Any
) -> Sentences:
    """The columns as lists; ValueError if they do not hold sentences and labels."""
    if not len(labels):
        raise ValueError(f"{source} holds no sentence: fetch it anew.")
    for row, (sentence, label) in enumerate(zip(sentences, labels, strict=True)):
        if not isinstance(sentence, str) or label not in (0, 1):
            raise ValueError(
                f"{source}, row {row:,}: {str(sentence)[:60]!r} with label {label!r} is not a "
                "sentence with 0 or 1; fetch it anew."
            )
    return Sentences(list(sentences), list(labels), list(idx))

"""SST-2 as published: GLUE's tab-separated files, or Hugging Face's dataset.

Sentences keep the space they end with, as both have it.  A local copy in either form is read
without the network; Hugging Face's `datasets` is asked only when there is to be no local copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mico_competition.data.downloads import DownloadError, MissingDataError
from mico_competition.support.files import PathLike
from mico_competition.support.untrusted import check_file, read_limited

HUB_NAME = ("nyu-mll/glue", "sst2")
HEADER = "sentence\tlabel"
MAX_BYTES = 1 << 30
MAX_ROWS = 20_000_000
SPLITS = (("train", "train.tsv"), ("validation", "dev.tsv"))


class Sentences(NamedTuple):
    """One split, or both in a row: three lists of equal length."""

    sentences: list[str]
    labels: list[int]
    idx: list[int]

    def then(self, others: Sentences) -> Sentences:
        """These sentences followed by `others`."""
        return Sentences(
            self.sentences + others.sentences, self.labels + others.labels, self.idx + others.idx
        )


def read_sst2(dataset_dir: PathLike | None, download: bool) -> Sentences:
    """Training sentences, then validation; `idx` starts at 0 in each.

    Args:
        dataset_dir: a folder with `train.tsv` and `dev.tsv` (or with `SST-2` or `sst2` that holds
            them), or with Hugging Face's `sst2/train-*.parquet` and `sst2/validation-*.parquet`.
            None: the dataset of Hugging Face, from its cache or the network.
        download: turn to Hugging Face if `dataset_dir` holds no copy.

    Raises:
        MissingDataError: if there is no copy and `download` is false.
        DownloadError: if Hugging Face's copy cannot be had.
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
    """One of GLUE's files: a header, then a sentence, a tab and 0 or 1 a line.

    Quotes are letters like any other, and only a line feed ends a line.
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
    """One split of Hugging Face's files, which may be in several pieces."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"Reading {folder} needs pyarrow: pip install -e '.[text]'.") from error
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
    """The columns of a parquet file; ValueError if it stands for more than SST-2 may be.

    Sentences are kept as numbers of different ones until it is known how long they are together:
    a long one may be quoted any number of times in a few bytes.
    """
    import pyarrow.compute
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path, read_dictionary=["sentence"]) as file:
        told = file.metadata
        groups = [told.row_group(i) for i in range(min(told.num_row_groups, MAX_ROWS))]
        size = sum(group.total_byte_size for group in groups)
        if told.num_rows > MAX_ROWS or size > MAX_BYTES:
            raise ValueError(f"{path} stands for {told.num_rows:,} rows, {size:,} bytes.")
        table = file.read(columns=list(_COLUMNS))
    for column in table.column("sentence").chunks if "sentence" in table.column_names else ():
        lengths = pyarrow.compute.binary_length(column.dictionary)
        total = pyarrow.compute.sum(lengths.take(column.indices)).as_py() or 0
        if total > MAX_BYTES:
            raise ValueError(f"{path} stands for {total:,} bytes of text.")
    return table


def _from_hub() -> list[Sentences]:
    """Both splits of Hugging Face's dataset."""
    mend = "give a folder with GLUE's train.tsv and dev.tsv instead"
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"Fetching SST-2 needs datasets: pip install -e '.[text]', or {mend}."
        ) from error
    try:
        both = datasets.load_dataset(*HUB_NAME)
    except Exception as error:  # the hub's client fails in the ways of several libraries
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DownloadError(
            f"Could not load {'/'.join(HUB_NAME)} from Hugging Face ({reason}): {mend}."
        ) from error
    return [_from_columns(both[split][:], "/".join(HUB_NAME)) for split, _ in SPLITS]


_COLUMNS = ("sentence", "label", "idx")


def _from_columns(columns: Any, place: Any) -> Sentences:
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise ValueError(f"{place} lacks the column {missing[0]!r}: fetch it anew.")
    sentences, labels, idx = (columns[name] for name in _COLUMNS)
    return _checked(sentences, labels, idx, place)


def _checked(
    sentences: Sequence[str], labels: Sequence[int], idx: Sequence[int], place: Any
) -> Sentences:
    """The columns as lists, once they are seen to hold sentences and labels."""
    if not len(labels):
        raise ValueError(f"{place} holds no sentence: fetch it anew.")
    for row, (sentence, label) in enumerate(zip(sentences, labels, strict=True)):
        if not isinstance(sentence, str) or label not in (0, 1):
            raise ValueError(
                f"{place}, row {row:,}: {str(sentence)[:60]!r} with label {label!r} is not a "
                "sentence with 0 or 1; fetch it anew."
            )
    return Sentences(list(sentences), list(labels), list(idx))

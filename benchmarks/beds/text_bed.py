"""The test-bed `text`: 20,000 real short sentences of SST-2, and a base model of other sentences.

    python benchmarks/beds/text_bed.py BASE --dataset_dir FOLDER

makes the base model: a small RoBERTa that learnt from the sentences that are not in the test-bed,
saved without its head, as a model of the Hugging Face Hub that somebody fine-tunes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import torch

from mico_competition.data.arrays import TextDataset
from mico_competition.data.datasets import load_sst2

RECORDS, WORDS, SEED = 20_000, 10, 0


def load_short(dataset_dir: str | os.PathLike[str] = ".") -> TextDataset:
    """20,000 random ones of SST-2's sentences of at most 10 words."""
    return _part(load_sst2(dataset_dir), chosen=True)


def load_others(dataset_dir: str | os.PathLike[str] = ".") -> TextDataset:
    """The other sentences, of any length, from which the base model learns."""
    return _part(load_sst2(dataset_dir), chosen=False)


def _part(data: TextDataset, chosen: bool) -> TextDataset:
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(SEED))
    short = torch.tensor([len(sentence.split()) <= WORDS for sentence in data.sentences])
    rank = torch.cumsum(short[order].long(), 0) - 1
    ours = short[order] & (rank < RECORDS)
    places = order[ours if chosen else ~ours]
    sentences = [data.sentences[i] for i in places.tolist()]
    return TextDataset(sentences, data.labels[places], data.idx[places])


def make_base(folder: Path, dataset_dir: Path) -> None:
    """Train the base model in `folder`, once, and drop its head."""
    from safetensors.torch import load_file, save_file

    from mico_competition.models.small_roberta import make_small_roberta
    from mico_competition.support.files import written_aside

    fresh, trained = folder.with_name("text_fresh"), folder.with_name("text_pretrained")
    if not fresh.exists():
        make_small_roberta(fresh, load_others(dataset_dir).sentences)
    if not trained.exists():
        ours = Path(__file__).with_name("text.toml")
        command = [sys.executable, "-m", "mico_competition.cli", "--competition", str(ours)]
        command += ["train", "--task", "sst2_others", "--model_name", str(fresh)]
        command += [
            "--disable_dp",
            "--optimizer",
            "adamw",
            "--learning_rate",
            "5e-4",
            "--batch_size",
            "96",
        ]
        command += ["--num_epochs", "1", "--split_seed", "0", "--train_seed", "0"]
        command += ["--dataset_dir", str(dataset_dir), "--output_dir", str(trained)]
        subprocess.run(command, check=True)
    if not folder.exists():
        weights = load_file(trained / "model.safetensors")
        body = {name: own for name, own in weights.items() if not name.startswith("classifier.")}
        with written_aside(folder) as aside:
            aside.mkdir()
            save_file(body, aside / "model.safetensors", metadata={"format": "pt"})
            for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
                (aside / name).write_bytes((fresh / name).read_bytes())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    arguments = parser.parse_args()
    make_base(arguments.folder, arguments.dataset_dir)

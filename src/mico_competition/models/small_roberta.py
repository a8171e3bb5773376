"""Makes a small untrained RoBERTa with its tokenizer, for tests and machines without roberta-base.

    python -m mico_competition.models.small_roberta DEST --dataset_dir DATA

writes a folder for `--model_name DEST`: a configuration without weights (so training starts from
fresh ones) and a byte-level BPE tokenizer trained on SST-2's sentences.  The model is smaller than
roberta-base and not pretrained, so its results say nothing about roberta-base.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mico_competition.support.command_line import Parser, run_command
from mico_competition.support.files import PathLike, written_aside

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def make_small_roberta(
    folder: PathLike,
    sentences: Iterable[str],
    *,
    vocab_size: int = 8000,
    hidden_size: int = 128,
    num_layers: int = 2,
    num_heads: int = 2,
    max_length: int = 67,
) -> Path:
    """Write a configuration and a tokenizer to a new folder.

    The same sentences give the same bytes.

    Args:
        folder: the folder to write; it must not exist.
        sentences: the text to train the tokenizer on.
        vocab_size: the most tokens, including 256 bytes and 5 special tokens.
        hidden_size, num_layers, num_heads: sizes of the transformer; its inner layer is 4 times
            as wide.
        max_length: the most tokens of an input.
    """
    tokenizer = _train_tokenizer(sentences, vocab_size)
    config = {
        "architectures": ["RobertaForSequenceClassification"],
        "model_type": "roberta",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "intermediate_size": 4 * hidden_size,
        # RoBERTa counts positions from pad_token_id + 1.
        "max_position_embeddings": max_length + 2,
        "type_vocab_size": 1,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "layer_norm_eps": 1e-5,
    }
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), _SPECIAL))
    names |= {"cls_token": "<s>", "sep_token": "</s>"}
    with written_aside(folder) as aside:
        aside.mkdir()
        (aside / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
        _write_json(aside / "config.json", config)
        _write_json(
            aside / "tokenizer_config.json",
            {"tokenizer_class": "RobertaTokenizerFast", "model_max_length": max_length, **names},
        )
    return Path(folder)


def _train_tokenizer(sentences: Iterable[str], vocab_size: int) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    """Run the command above."""
    parser = Parser(
        prog="python -m mico_competition.models.small_roberta", description=__doc__.splitlines()[0]
    )
    parser.add_argument("dest", type=Path)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--hidden_size", type=int, default=128)
    parser.add_argument("--num_layers", type=int, default=2)

    def run(args: argparse.Namespace) -> None:
        from mico_competition.data.datasets import load_sst2

        made = make_small_roberta(
            args.dest,
            load_sst2(args.dataset_dir).sentences,
            hidden_size=args.hidden_size,
            num_layers=args.num_layers,
            num_heads=max(1, args.hidden_size // 64),
        )
        print(f"Wrote {made}: not pretrained, and not roberta-base.")

    parser.set_defaults(run=run)
    return run_command(parser, None)


if __name__ == "__main__":
    sys.exit(main())

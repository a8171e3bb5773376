#!/usr/bin/env python3
"""Peak memory of a private step of roberta-base's shape: docs/results/text_memory.json.

    PYTHONPATH=src python benchmarks/text_memory.py

takes one private step (book-keeping, AdamW) on a logical batch of several physical ones, of 64
sentences of 67 tokens each, with random weights and tokens.  The peak is the largest resident set
of the process since it began to measure, interpreter and libraries included, at the end of each
physical batch and of the step.  A run that is cut leaves what it has measured.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import RobertaConfig, RobertaForSequenceClassification

from mico_competition.support.memory_limits import PeakMemory
from mico_competition.training import private_checks
from mico_competition.training.dpsgd import DPSGD

RESULT = Path(__file__).resolve().parents[1] / "docs" / "results" / "text_memory.json"
SENTENCES, TOKENS, VOCABULARY = 64, 67, 50_265


def main() -> None:
    """Take the step, and write the JSON after each physical batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--physical", type=int, default=16, help="physical batches of the step")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    sizes = {"hidden_size": args.width, "num_hidden_layers": args.layers}
    sizes |= {"num_attention_heads": args.width // 64, "intermediate_size": 4 * args.width}
    memory = PeakMemory()
    config = RobertaConfig(vocab_size=VOCABULARY, max_position_embeddings=514, **sizes)
    model = RobertaForSequenceClassification(config).train()
    report: dict[str, Any] = {
        "command": f"PYTHONPATH=src python benchmarks/text_memory.py --physical {args.physical}",
        "machine": f"{platform.machine()}, CPU, torch {torch.__version__}",
        "model": {**sizes, "vocab_size": VOCABULARY, "attention": config._attn_implementation},
        "parameters": sum(p.numel() for p in model.parameters()),
        "batch": {"sentences": SENTENCES, "tokens": TOKENS},
        "peak_gb": {},
    }

    def tell(name: str) -> None:
        """Add the peak so far to the JSON, in GB of 10^9 bytes."""
        peak = round((memory.begun + memory.growth()) / 1e9, 3)
        report["peak_gb"][name] = peak
        args.out.write_text(json.dumps(report, indent=2) + "\n")
        print(name, peak, f"GB, {time.process_time():.0f} s of CPU", flush=True)

    take_step(model, args.physical, tell)


def take_step(model: Any, count: int, tell: Callable[[str], None]) -> None:
    """Take a step, and tell of each physical batch that has ended, and of the step."""
    trainer = DPSGD(
        model,
        torch.optim.AdamW(model.parameters(), lr=1e-5),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=1024,
        max_physical_batch_size=SENTENCES,
        fixed_shapes=True,
    )
    # The checks before a first step take more passes, none of them over more than this step's.
    trainer.checks.checked = [private_checks._computes(each) for each in model.modules()]
    ids = torch.randint(5, VOCABULARY, (SENTENCES * count, TOKENS))
    begun = 0

    def inputs(at: torch.Tensor) -> dict[str, torch.Tensor]:
        nonlocal begun
        tell(f"after {begun} physical batches")
        begun += 1
        return {"input_ids": ids[at], "attention_mask": torch.ones_like(ids[at])}

    trainer.step(torch.arange(len(ids)), inputs, torch.randint(2, (len(ids),)))
    tell(f"after the step, of {begun} physical batches")


if __name__ == "__main__":
    main()

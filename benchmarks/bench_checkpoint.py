#!/usr/bin/env python3
"""Size and writing time of a checkpoint: python benchmarks/bench_checkpoint.py [FOLDER].

The model has the size of roberta-base and random weights; the optimiser is AdamW after a step.
The checkpoint is written three times into FOLDER (by default the current one), and read once.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import RobertaConfig, RobertaForSequenceClassification

from mico_competition.training.checkpoint import Checkpoint, OpenCheckpoint
from mico_competition.training.run_state import RunState


def main(folder: str) -> None:
    """Print the size, and the seconds of each writing and of the reading."""
    config = RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)
    model = RobertaForSequenceClassification(config)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    generator = torch.Generator()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        place = Checkpoint(Path(scratch) / "checkpoint", code="none")
        run = OpenCheckpoint(place, dict)
        state = RunState(
            model,
            optimizer,
            noise=generator,
            sampling=generator,
            checkpoint=run,
            num_steps=9,
            steps_per_epoch=9,
        )
        state.start(torch.optim.lr_scheduler.StepLR(optimizer, 1))
        for number in range(3):
            wall, cpu = time.perf_counter(), time.process_time()
            assert run.write(state.state_dict(), number)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            size = sum(path.stat().st_size for path in place.folder.iterdir())
            print(f"{size / 1e9:.2f} GB written in {wall:.1f} s, {cpu:.1f} s of them on the CPU")
        run.close()
        wall = time.perf_counter()
        again = OpenCheckpoint(place, dict)
        again.read()
        again.close()
        print(f"read in {time.perf_counter() - wall:.1f} s")
    load, parameters = os.getloadavg()[0], sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters, torch {torch.__version__}, load {load:.0f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ".")

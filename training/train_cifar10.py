#!/usr/bin/env python3
"""Train one model of cifar10.

python training/train_cifar10.py --scenario cifar10_lo --model_id 0 --output_dir OUT
"""

import sys

from mico_competition.cli.train import main_of_task

if __name__ == "__main__":
    sys.exit(main_of_task("cifar10"))

#!/usr/bin/env python3
"""Train one model of purchase100.

python training/train_purchase100.py --scenario purchase100_lo --model_id 0 --output_dir OUT
"""

import sys

from mico_competition.cli.train import main_of_task

if __name__ == "__main__":
    sys.exit(main_of_task("purchase100"))

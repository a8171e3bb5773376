#!/usr/bin/env python3
"""Train one model of sst2.

python training/train_sst2.py --scenario sst2_lo --model_id 0 --output_dir OUT
"""

import sys

from mico_competition.cli.train import main_of_task

if __name__ == "__main__":
    sys.exit(main_of_task("sst2"))

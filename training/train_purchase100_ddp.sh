#!/bin/sh
exec python "$(dirname "$0")/train_purchase100.py" --scenario purchase100_ddp "$@"

#!/bin/sh
exec "${PYTHON:-python3}" "$(dirname "$0")/train_purchase100.py" --scenario purchase100_inf "$@"

#!/bin/sh
exec "${PYTHON:-python3}" "$(dirname "$0")/train_sst2.py" --scenario sst2_inf "$@"

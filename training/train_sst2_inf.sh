#!/bin/sh
exec python "$(dirname "$0")/train_sst2.py" --scenario sst2_inf "$@"

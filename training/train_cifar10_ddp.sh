#!/bin/sh
exec "${PYTHON:-python3}" "$(dirname "$0")/train_cifar10.py" --scenario cifar10_ddp "$@"

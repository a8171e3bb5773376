#!/bin/sh
exec python "$(dirname "$0")/train_cifar10.py" --scenario cifar10_ddp "$@"

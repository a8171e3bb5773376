"""2022's module `challenge_datasets`, kept so that code which imports from it runs unchanged."""

from mico_competition.data.datasets import load_cifar10, load_purchase100, load_sst2

__all__ = ["load_cifar10", "load_purchase100", "load_sst2"]

"""2022's module `mico_competition.mico`, kept so that code which imports from it runs unchanged."""

from mico_competition.competition.challenge import ChallengeDataset
from mico_competition.competition.lengths import LEN_CHALLENGE
from mico_competition.models.architectures import CNN, MLP, load_model

__all__ = ["CNN", "LEN_CHALLENGE", "MLP", "ChallengeDataset", "load_model"]

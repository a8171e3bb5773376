"""The leak check: compares a release with what it must contain, and searches it for secrets."""

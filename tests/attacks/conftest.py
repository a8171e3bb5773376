"""Puts this folder on the path, so that tests in its folders find the helpers that they share."""

"""Holds a release against what it must be, independently of the code that made it."""

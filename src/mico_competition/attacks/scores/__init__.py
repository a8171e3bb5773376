"""Closed forms: arrays of signals -> scores, with numpy alone."""

"""Comparisons with intervals: predictions with masks, people with each other, versions with versions."""

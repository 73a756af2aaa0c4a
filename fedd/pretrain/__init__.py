"""Pretraining of a small backbone, and the teacher that FEDD compares with."""

"""Pretraining of a backbone: the run, its data, and the ImageNet encoder that can teach it."""

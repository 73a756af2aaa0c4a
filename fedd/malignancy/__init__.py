"""Malignant or benign from pooled activations. Research output, not a diagnosis."""

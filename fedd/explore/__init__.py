"""Exploration of blocks and timesteps: K-means maps of activations, and the ablation grid."""

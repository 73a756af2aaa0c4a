"""Which blocks and timesteps to read: maps of what a block sees, and the ablation grid."""

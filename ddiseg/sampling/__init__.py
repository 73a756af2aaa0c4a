"""Which images are selected: subsets, batches, training and hold-out split."""

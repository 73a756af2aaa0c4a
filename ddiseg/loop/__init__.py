"""The active-learning loop: pull, train, evaluate, select, pre-annotate, push."""

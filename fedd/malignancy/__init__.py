"""The malignancy classifier, and how well it discriminates: research output, not a diagnosis."""

"""Fuzz runs over the importers: odd files, and what may never happen with them."""

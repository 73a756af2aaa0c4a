"""Rendered photographs of skin lesions, with the exact mask of every pixel."""

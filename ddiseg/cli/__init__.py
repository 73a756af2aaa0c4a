"""The command line `ddiseg`: parse, call, print; the work is done elsewhere."""

from ddiseg.cli.root import cli, main

__all__ = ["cli", "main"]

"""The command line `fedd`, one file a command group; heavy imports happen inside the commands."""

from fedd.cli.root import cli, main

__all__ = ["cli", "main"]

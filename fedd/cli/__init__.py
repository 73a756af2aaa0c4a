"""The command line `fedd`, one file a command group."""

"""The command line `ddiseg`: parse, call, print; the work is done elsewhere."""

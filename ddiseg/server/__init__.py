"""`ddiseg serve`: the ML backend and webhook receiver of a labelling server."""

"""Benchmarks: each prints its figures as ratios against a named peer, measured in the same run.

`python -m benchmarks` runs all, `python -m benchmarks NAME ...` some; --help lists them.
"""

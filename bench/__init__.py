"""Benchmarks: each module prints what it measured; `python -m bench` runs all of them."""

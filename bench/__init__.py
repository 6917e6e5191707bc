"""Benchmarks: `make bench` measures real processes and prints one JSON line a figure."""

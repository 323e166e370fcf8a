"""Benchmarks: a folder per claim (README.md is the index), and in `common` what several use."""

"""Demonstration of the router on real processes: `make demo` and `make play`."""

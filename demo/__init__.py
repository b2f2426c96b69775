"""What the project does, shown on real processes: `make demo` and `make play`."""

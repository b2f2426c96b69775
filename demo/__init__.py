"""What the project is for, shown on real processes: `make demo`."""

"""Loads: placement, single flight, fenced jobs and the quarantine."""

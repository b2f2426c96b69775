"""Bring models up: placement, single flight, fenced jobs."""

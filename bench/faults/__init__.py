"""Measurements of a fleet of real processes that crash, stop, hang and lose their models."""

"""Comparison of the router with direct calls and with other gateways."""

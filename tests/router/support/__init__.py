"""Fakes, servers and generators for the tests of router."""

"""Attacks on routers and nodes, each as a test."""

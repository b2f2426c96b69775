"""Hosts models: one gRPC server, slots, unloading, and membership of a fleet."""

"""The access to nodes: channels, control plane, probes and membership."""

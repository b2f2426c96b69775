"""Talk to nodes: channels, control plane, probes, membership."""

"""The guard: one logic (`methods`, `models`, `session`, `guard`) under two surfaces."""

"""The registry in memory."""

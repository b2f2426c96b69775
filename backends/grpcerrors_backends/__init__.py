"""Model backends that follow the error contract, and the host that serves them."""

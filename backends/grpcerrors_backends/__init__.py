"""Model backends on the error contract: one host, one module a backend."""

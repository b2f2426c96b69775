"""The router beside direct calls and beside its peers: `python -m bench.router`."""

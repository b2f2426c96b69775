"""The model host: gRPC server, model slots, unloading, and membership of a router's fleet."""

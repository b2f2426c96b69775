"""One address for the fleet: the services that a router serves."""

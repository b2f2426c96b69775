"""The gateway: one address for the fleet, and the services that a router serves there."""

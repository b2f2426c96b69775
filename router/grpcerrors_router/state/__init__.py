"""The state of the fleet as people see it: one schema, built in one place."""

"""From a model to a replica that holds it: the table in memory, and the loads that fill it."""

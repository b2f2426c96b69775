"""The registry in memory, and what keeps it in step with the database."""

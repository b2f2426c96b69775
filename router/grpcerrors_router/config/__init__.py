"""models.toml, read and checked."""

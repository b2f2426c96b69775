"""The configuration: models.toml and its validation."""

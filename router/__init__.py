"""A router for model backends that heals its registry on the error contract's evidence."""

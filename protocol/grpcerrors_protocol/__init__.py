"""Generated messages and stubs of the backend, inference and fleet protocols."""

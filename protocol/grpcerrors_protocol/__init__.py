"""Generated messages and stubs of the backend and fleet protocols."""

"""The wire protocol: messages and stubs of the backend service and of the fleet service."""

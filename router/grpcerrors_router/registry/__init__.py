"""The registry: which node holds which model, in a database that routers share."""

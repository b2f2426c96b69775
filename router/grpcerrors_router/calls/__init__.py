"""The path of one request: dispatch, retry, replay, and what its errors prove."""

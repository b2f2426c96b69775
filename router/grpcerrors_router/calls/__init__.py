"""One request: dispatch, retry, replay, and what its errors prove."""

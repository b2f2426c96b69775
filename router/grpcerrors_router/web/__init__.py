"""The live page: a view of the fleet in a browser, with buttons for operators."""

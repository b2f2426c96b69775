"""The tracked call: counted, judged by its error, and sent again where that is safe."""

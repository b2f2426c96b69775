"""What a fleet does when processes die, stop, hang and forget: real processes, measured."""

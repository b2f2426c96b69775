"""Who may do what: the tokens of callers, nodes and operators, and the tokens for nodes."""

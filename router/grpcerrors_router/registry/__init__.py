"""What is where: the shared truth in a database, and the rules that keep it true."""

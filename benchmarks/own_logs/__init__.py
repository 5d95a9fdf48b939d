"""How many accidents a shield prevents that was made from CSV logs with defaults only."""

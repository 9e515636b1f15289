"""Networks and methods."""

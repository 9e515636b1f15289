"""From hand motion to events."""

"""Exported models without torch."""

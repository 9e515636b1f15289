"""Readers and writers of event files, one format a file."""

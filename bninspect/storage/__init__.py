"""Bytes and names, local or behind a URL, whatever they mean."""

"""Bytes and names of files, local or behind a URL, without their meaning."""

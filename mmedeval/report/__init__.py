"""Finished runs as a page, a picture or a table."""

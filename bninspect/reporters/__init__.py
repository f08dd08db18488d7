"""A reporter is one function that writes a report to a stream; machine formats are plain text."""

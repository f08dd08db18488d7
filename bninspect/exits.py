"""The exit codes of the commands that judge; 2 wins over 1, 1 over 3."""

OK = 0  # nothing at or above --fail-on
FINDINGS = 1
PROBLEM = 2  # something could not be read, or was asked for wrongly
NOTHING_CHECKED = 3
# What a shell reports of a program that SIGINT ended.
INTERRUPTED = 130

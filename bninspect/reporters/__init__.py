"""Reporters: functions and classes that write a report to a stream, one module per format."""

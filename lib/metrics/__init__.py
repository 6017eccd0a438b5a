"""Errors of a reconstruction against a scan or a known truth; every published protocol is a list of named steps."""

"""The command line: one file for each verb, which parses, calls one function of the public API, and prints."""

"""The exit codes of all commands."""

__all__ = ["FAILURE", "INTERRUPTED", "SUCCESS", "WRONG_USAGE"]

SUCCESS = 0
FAILURE = 1
WRONG_USAGE = 2
# What a shell makes of a process that Ctrl-C ended.
INTERRUPTED = 130

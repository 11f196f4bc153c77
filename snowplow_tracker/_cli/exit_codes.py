"""The exit codes of all commands."""

__all__ = ["FAILURE", "INTERRUPTED", "NOT_DELIVERED", "SUCCESS", "WRONG_USAGE"]

SUCCESS = 0
FAILURE = 1
WRONG_USAGE = 2
# There is something left that makes sense to send again.
NOT_DELIVERED = 3
# What a shell makes of a process that Ctrl-C ended.
INTERRUPTED = 130

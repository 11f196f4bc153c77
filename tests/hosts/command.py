"""A command-line tool that tracks three events, says so, and ends the way it is told to."""

import os
import sys

from application import flush, track

for number in range(3):
    track(number)
print("tracked three events", flush=True)
if sys.argv[1] == "exit":
    sys.exit(3)
if sys.argv[1] == "flush and _exit":
    flush()
    os._exit(3)

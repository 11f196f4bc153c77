"""A program whose child processes track: `pool.py <kind of pool> <start method>`."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from application import flush, track


def track_and_flush(number):
    track(number)
    flush()


if __name__ == "__main__":
    kind, start_method = sys.argv[1:]
    context = multiprocessing.get_context(start_method)
    track("sent before the children begin")
    flush()
    track("waiting when the children begin")
    if kind == "executor":
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            list(executor.map(track, range(20)))
    elif kind == "pool":
        with context.Pool(2) as pool:
            pool.map(track, range(20), chunksize=1)
            pool.close()
            pool.join()
    else:
        with context.Pool(2) as pool:
            pool.map(track_and_flush, range(20), chunksize=1)

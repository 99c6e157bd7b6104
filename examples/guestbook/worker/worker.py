"""Counts the entries of the guest book as they are written, each exactly once.

An entry's name is moved from `to-count` to `counting`, and leaves that list in the same
transaction that raises the count: a worker that dies in between finds it there again.
"""

import os
import signal
import sys
import time

import redis

STORE = redis.Redis(os.environ.get("STORE", "localhost"), decode_responses=True)
PATIENCE = 5  # seconds to wait for an entry before looking again


def count(name: str) -> int:
    with STORE.pipeline() as transaction:
        transaction.incr("counted")
        transaction.lrem("counting", 1, name)
        counted, _ = transaction.execute()
    return int(counted)


def main() -> None:
    # The first process of a container ignores signals that it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print("the worker waits for entries")
    while True:
        try:
            for name in STORE.lrange("counting", 0, -1):
                print(f"entry {count(name)} is by {name} (found again)")
            while True:
                name = STORE.blmove("to-count", "counting", PATIENCE)
                if name is not None:
                    print(f"entry {count(name)} is by {name}")
        except redis.ConnectionError as exc:
            print(f"the store does not answer, trying again: {exc}")
            time.sleep(1)


main()

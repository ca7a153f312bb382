"""The same for a program without asyncio: `attach()` joins the bus in a thread of its own.

A shutdown arrives as SIGTERM, so a program that never heard of the bus needs no other change.
"""

import time

from bus import process


def main() -> None:
    process.attach()
    number = 0
    while True:
        number += 1
        print("working", number, flush=True)
        time.sleep(1)


if __name__ == "__main__":
    main()

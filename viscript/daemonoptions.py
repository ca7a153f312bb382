"""What the daemon is told when it is started."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from viscript.home import Home


class Options(Struct, frozen=True):
    """From the command line of `viscript.daemon`, which `viscript up` and `down` write."""

    home: Home
    config: Path
    events: int | None  # descriptor for `Event` lines
    down: bool  # only end what an earlier daemon left


def parse(arguments: list[str]) -> Options:
    import argparse  # `viscript up` needs none of it

    parser = argparse.ArgumentParser("viscript.daemon", description="Started by `viscript up`.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--events", type=int)
    parser.add_argument("--down", action="store_true")
    given = parser.parse_args(arguments)
    return Options(Home(given.home), given.config, given.events, given.down)

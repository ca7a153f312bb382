"""The examples of docs/client.md are run as they stand, one after the other, against a real broker."""

import ast
import asyncio
import inspect
import re
from pathlib import Path
from types import FunctionType

from bus import Address, keystore
from tests.support.broker import running_broker
from tests.support.joined import joined

DOCUMENT = Path(__file__).parents[2] / "docs" / "client.md"


def examples() -> list[tuple[int, str]]:
    """The ```python blocks, with the line where each begins."""
    text = DOCUMENT.read_text()
    return [
        (text.count("\n", 0, found.start(1)), found.group(1))
        for found in re.finditer(r"```python\n(.*?)```", text, re.DOTALL)
    ]


async def run(line: int, source: str, names: dict[str, object]) -> None:
    """Run a block that may await at its top, with the names of those before it."""
    code = compile(
        "\n" * line + source, str(DOCUMENT), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    )
    result = FunctionType(code, names)()
    if inspect.iscoroutine(result):
        await asyncio.wait_for(result, 30)


async def test_every_example_of_the_clients_document_works() -> None:
    with running_broker(alice="app", bob="app", carol="app", root="admin") as broker:
        async with (
            joined(broker, "alice") as bus,
            joined(broker, "bob") as worker,
            joined(broker, "root") as admin,
        ):
            names: dict[str, object] = {
                "asyncio": asyncio, "bus": bus, "worker": worker, "admin": admin,
                "endpoint": broker.address.endpoint, "broker_key": broker.address.key,
                "key_file": broker.folder / "carol.key",
            }  # fmt: skip
            found = examples()
            assert len(found) > 15
            for line, source in found:
                await run(line, source, names)
            assert names["address"] == Address(broker.address.endpoint, broker.address.key)
            assert names["keypair"] == keystore.load(broker.folder / "carol.key")

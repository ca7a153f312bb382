"""Every example of a configuration in the documents loads, and is valid by the published schema."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from viscript import config
from viscript.config import values
from viscript.config.parts import PROBES
from viscript.rules import LogRule, Probe, RestartRule

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "config.md").read_text()
EXAMPLES = [
    (page.name, text)
    for page in sorted(DOCS.rglob("*.md"))
    for text in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    if text.lstrip().startswith("apps:")
]


@pytest.mark.parametrize(("page", "text"), EXAMPLES, ids=[page for page, _ in EXAMPLES])
def test_examples_load(page, text):
    config.parse(text.encode(), Path(page))
    schema = json.loads(config.schema().read_text())
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(text))


def test_every_key_is_described():
    assert sum(page == "config.md" for page, _ in EXAMPLES) >= 8
    known = set(config.App.__struct_fields__) - {"name", "place", "places"}
    details = {f for rule in (RestartRule, LogRule, Probe) for f in rule.__struct_fields__}
    details = (details - {"kind", "target"}) | set(PROBES) | values.LIMITS.keys()
    missing = {key for key in known | details if not re.search(rf"\b{key}\b", PAGE)}
    assert missing == set()
    for key in known:
        assert re.search(rf"^\| [^|]*`{key}`", PAGE, re.MULTILINE), key

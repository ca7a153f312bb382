"""The configuration file: typed, strict, every complaint with file:line:column.

The schema is the original one (`apps:` and `settings:`) with optional keys; docs/config.md and
config/config.schema.json describe it. What a path names is not looked at here but when the app is
started, so that a file made for another machine still loads and lists.
"""

from viscript.config.file import find, load, parse, read, schema, shipped
from viscript.config.model import App, Config, Role
from viscript.config.nodes import BadFile

__all__ = [
    "App", "BadFile", "Config", "Role", "find", "load", "parse", "read", "schema", "shipped",
]  # fmt: skip

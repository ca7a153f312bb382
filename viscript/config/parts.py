"""Reading the parts of an app's entry that are more than a word."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, cast

import yaml

from viscript.config import values
from viscript.config.nodes import Fields, Reader, is_null, keys
from viscript.rules import NO_PROBE, After, LogRule, Policy, Probe, RestartRule, StopStep, Until

POLICIES = ("never", "on-failure", "always")
UNTIL = ("started", "ready", "completed")
PROBES = ("tcp", "http", "exec", "log", "notify", "bus")


class Parts:
    """One method for each part; all take a node and what it is called in complaints."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def restart(self, node: yaml.Node, where: str) -> RestartRule:
        read = self._reader
        policy = read.one_of(*POLICIES)
        if not isinstance(node, yaml.MappingNode):
            return RestartRule(cast("Policy", policy(node, where)))
        known = ("policy", "delay", "cap", "give_up", "stable", "success", "never_codes")
        found = Fields(read, node, where, known)
        rule = RestartRule()
        codes = read.many(read.value(values.whole(0, 255)))
        rule = RestartRule(
            policy=cast("Policy", found.need("policy", policy)),
            delay=found.get("delay", read.value(values.duration), rule.delay),
            cap=found.get("cap", read.value(values.duration), rule.cap),
            give_up=found.get("give_up", read.value(values.whole(0, 1_000_000)), rule.give_up),
            stable=found.get("stable", read.value(values.duration), rule.stable),
            success=found.get("success", codes, rule.success),
            never_codes=found.get("never_codes", codes, rule.never_codes),
        )
        if rule.delay > rule.cap:
            key = "delay" if "delay" in found else "cap"
            raise found.bad(key, f"a delay of {rule.delay:g} s is over the cap of {rule.cap:g} s")
        if rule.policy == "never":
            for key in ("delay", "cap", "give_up", "stable", "never_codes"):
                if key in found:
                    raise found.bad(key, "means nothing with the policy never")
        return rule

    def after(self, node: yaml.Node, where: str) -> tuple[After, yaml.Node]:
        """With its node, for complaints about names that are known only later."""
        read = self._reader
        if not isinstance(node, yaml.MappingNode):
            return After(read.text(node, where)), node
        found = Fields(read, node, where, ("app", "until"))
        until = found.get("until", read.one_of(*UNTIL), "ready")
        return After(found.need("app", read.text), cast("Until", until)), node

    def ready(self, node: yaml.Node, where: str) -> Probe:
        if isinstance(node, yaml.MappingNode):
            return self._probe(node, where)
        word = self._reader.one_of("bus", "none")(node, where)
        return Probe("bus") if word == "bus" else NO_PROBE

    def alive(self, node: yaml.Node, where: str) -> Probe | None:
        found = self.ready(node, where)
        if found.kind == "log":
            raise self._reader.bad(
                node, f"{where}: a line in the log cannot tell that an app is still well"
            )
        return None if found.kind == "none" else found

    def _probe(self, node: yaml.Node, where: str) -> Probe:
        read = self._reader
        found = Fields(read, node, where, (*PROBES, "timeout", "every", "failures", "delay"))
        kinds = [key for key in found.keys if key in PROBES]
        if len(kinds) != 1:
            named = " and ".join(kinds) or "none"
            raise read.bad(node, f"{where}: exactly one of {', '.join(PROBES)}, not {named}")
        usual = Probe()
        return Probe(
            cast("Any", kinds[0]),
            found.need(kinds[0], self._target(kinds[0])),
            timeout=found.get("timeout", read.value(values.some_time), usual.timeout),
            every=found.get("every", read.value(values.some_time), usual.every),
            failures=found.get("failures", read.value(values.whole(1, 1000)), usual.failures),
            delay=found.get("delay", read.value(values.duration), usual.delay),
        )

    def _target(self, kind: str) -> Callable[[yaml.Node, str], str | tuple[str, ...]]:
        read = self._reader

        def words(node: yaml.Node, where: str) -> tuple[str, ...]:
            found = read.texts(node, where)
            if not found or not found[0]:
                raise read.bad(node, f"{where}: the program to run is missing")
            return found

        def true(node: yaml.Node, where: str) -> str:
            if not read.boolean(node, where):
                raise read.bad(node, f"{where}: only true makes sense; leave the key out instead")
            return ""

        texts = {"tcp": values.host_port, "http": values.url, "log": values.expression}
        if kind in texts:
            return read.value(texts[kind])
        return words if kind == "exec" else true

    def stop(self, node: yaml.Node, where: str) -> tuple[StopStep, ...]:
        read = self._reader
        steps = read.many(self._step)(node, where)
        if not steps:
            raise read.bad(node, f"{where}: a list of steps like {{signal: TERM, wait: 10s}}")
        for number, step in enumerate(steps[:-1]):
            if step.signal == signal.SIGKILL:
                raise read.bad(node, f"{where}[{number}]: nothing can follow KILL")
        return steps

    def _step(self, node: yaml.Node, where: str) -> StopStep:
        read = self._reader
        if not isinstance(node, yaml.MappingNode):
            return StopStep(read.value(values.ending_signal)(node, where))
        found = Fields(read, node, where, ("signal", "wait"))
        return StopStep(
            found.need("signal", read.value(values.ending_signal)),
            found.get("wait", read.value(values.duration), StopStep().wait),
        )

    def environment(self, node: yaml.Node, where: str) -> dict[str, str]:
        found = self._reader.mapping(node, where)
        for name, key in keys(node):
            if (why := bad_variable(name)) is not None:
                raise self._reader.bad(key, f"{where}: {name!r} {why}")
        return {name: self._reader.text(value, f"{where}.{name}") for name, value in found.items()}

    def limits(self, node: yaml.Node, where: str) -> dict[str, int]:
        read = self._reader
        found = read.mapping(node, where, tuple(values.LIMITS))
        return {
            word: read.value(values.limit(values.LIMITS[word]))(value, f"{where}.{word}")
            for word, value in found.items()
            if not is_null(value)
        }

    def log(self, node: yaml.Node, where: str) -> LogRule:
        read = self._reader
        found = Fields(read, node, where, ("size", "files", "age", "total", "gzip"))
        usual = LogRule()
        rule = LogRule(
            size=found.get("size", read.value(values.size), usual.size),
            files=found.get("files", read.value(values.whole(1, 1000)), usual.files),
            age=found.get("age", read.value(values.duration), usual.age),
            total=found.get("total", read.value(values.size), usual.total),
            gzip=found.get("gzip", read.boolean, usual.gzip),
        )
        if rule.size < MIN_LOG:
            raise found.bad("size", f"less than {MIN_LOG} bytes is no log file")
        if rule.total and rule.total < rule.size:
            key = "total" if "total" in found else "size"
            raise found.bad(
                key, f"a total of {rule.total} bytes is less than one file of {rule.size}"
            )
        if rule.gzip and rule.files == 1:
            raise found.bad(
                "gzip", "there is nothing to compress where one file is all that is kept"
            )
        return rule


MIN_LOG = 4096  # bytes


def bad_variable(name: str) -> str | None:
    """Why an environment variable of this name cannot be set."""
    if name.startswith("VISCRIPT_"):
        return "is set by viscript itself"
    return None if values.ENV_NAME.fullmatch(name) else "is not a name"

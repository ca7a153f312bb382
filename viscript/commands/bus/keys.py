"""`viscript bus keys`: who belongs to the bus, and who asks to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from viscript.commands.bus import complete, typed
from viscript.commands.bus.texts import examples
from viscript.keyarguments import TakesKeys

if TYPE_CHECKING:
    from bus.signals import AccessEntry, Enrolment, Enrolments, Rules

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None,
    help="Keys that may use the bus, as admin. In a home this is done with its admin.key.",
)  # fmt: skip

VERBS = ("publish", "subscribe", "request", "serve", "signal")
Who = Annotated[
    str,
    typer.Argument(
        metavar="KEY|FINGERPRINT",
        autocompletion=complete.fingerprints,
        help="See: viscript bus keys pending.",
    ),
]
Roles = Annotated[
    list[str],
    typer.Option("--role", autocompletion=complete.roles, help="May be given several times."),
]
Name = Annotated[str, typer.Option("--name", help="For people; carries no right.")]


@app.command("list")
def list_() -> None:
    """List the keys that are allowed, and as what."""
    from bus.identity import fingerprint
    from bus.signals import ACCESS_LIST, AccessEntries
    from viscript import options
    from viscript.commands.bus.connection import ask_all
    from viscript.output import document, table

    found = ask_all(ACCESS_LIST, AccessEntries, admin=True).keys
    if options.as_json():
        document([_fields(entry) for entry in found])
        return
    rows = [(e.name, " ".join(e.roles), e.key, fingerprint(e.key), _exceptions(e)) for e in found]
    table(("NAME", "ROLES", "KEY", "FINGERPRINT", "BESIDE THE ROLES"), rows)


def _fields(entry: AccessEntry) -> dict[str, Any]:
    from bus.identity import fingerprint

    return {
        "key": entry.key,
        "name": entry.name,
        "roles": entry.roles,
        "fingerprint": fingerprint(entry.key),
        "allow": _rules(entry.allow),
        "deny": _rules(entry.deny),
    }


def _rules(rules: Rules | None) -> dict[str, list[str]]:
    return {verb: getattr(rules, verb) for verb in VERBS} if rules else {}


def _exceptions(entry: AccessEntry) -> str:
    return " ".join(
        f"{sign}{verb}={pattern}"
        for sign, rules in (("+", entry.allow), ("-", entry.deny))
        for verb, patterns in _rules(rules).items()
        for pattern in patterns
    )


@app.command(
    "allow",
    cls=TakesKeys,
    epilog=examples(
        "viscript bus keys allow KEY --role app --name thermometer",
        "viscript bus keys allow KEY --role app --allow 'publish=home.>' --deny subscribe=app.secret",
    ),
)
def allow(
    key: typed.KeyArgument,
    *,
    role: Annotated[
        list[str] | None,
        typer.Option("--role", autocompletion=complete.roles, help="May be given several times."),
    ] = None,
    name: Name = "",
    more: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="VERB=PATTERN", help=f"VERB: {', '.join(VERBS)}."),
    ] = None,
    less: Annotated[
        list[str] | None, typer.Option("--deny", metavar="VERB=PATTERN", help="Wins over all else.")
    ] = None,
) -> None:
    """Allow a key, or change what it may. What it may no longer do ends at once."""
    from bus.signals import ACCESS_PUT, AccessEntry
    from viscript.commands.bus.connection import ask
    from viscript.commands.bus.topics import done
    from viscript.errors import BadUsage

    public, roles = typed.key(key), role or []
    if not roles and not more:
        raise BadUsage("what may it? give --role, or --allow, or both")
    entry = AccessEntry(public, name, roles, rules(more or []), rules(less or []))
    ask(ACCESS_PUT, entry, dict, admin=True)
    done(_fields(entry), f"{public} is allowed{' as ' if roles else ''}{' '.join(roles)}")


def rules(words: list[str]) -> Rules | None:
    """VERB=PATTERN words; `BadUsage` for what is none."""
    from bus.signals import Rules
    from bus.subjects import is_pattern
    from viscript.errors import BadUsage

    found: dict[str, list[str]] = {}
    for word in words:
        verb, _, pattern = word.partition("=")
        if verb not in VERBS or not is_pattern(pattern):
            raise BadUsage(f"not VERB=PATTERN: {word!r}; VERB is {', '.join(VERBS)}")
        found.setdefault(verb, []).append(pattern)
    return Rules(**found) if found else None


@app.command(cls=TakesKeys)
def forbid(key: typed.KeyArgument) -> None:
    """Take a key out. Its sessions end at once and nothing more reaches them."""
    from bus.signals import ACCESS_LIST, ACCESS_REMOVE, AccessEntries, AccessKey
    from viscript.commands.bus.connection import Asking
    from viscript.commands.bus.topics import done
    from viscript.commands.bus.where import here
    from viscript.errors import NotFound

    public = typed.key(key)
    with Asking(here(admin=True)) as broker:
        if all(entry.key != public for entry in broker.ask_all(ACCESS_LIST, AccessEntries).keys):
            raise NotFound(f"{public} is not allowed anyway; see: viscript bus keys list")
        broker.ask(ACCESS_REMOVE, AccessKey(public), dict)
    done({"forbidden": public}, f"{public} is forbidden")


@app.command()
def pending() -> None:
    """List who asks to be admitted, the tokens that admit, and whether the door is open."""
    from viscript import options
    from viscript.output import document, moment, say, table

    found = _enrolments()
    if options.as_json():
        document(found)
        return
    if found.pending:
        rows = [(e.name, e.fingerprint, e.key, moment(e.since)) for e in found.pending]
        table(("NAME", "FINGERPRINT", "KEY", "ASKED"), rows)
    else:
        say("Nobody asks to be admitted.")
    for token in found.tokens:
        say(
            f"token {token.id}: {token.name or '-'} as {' '.join(token.roles)} until {moment(token.expires)}"
        )
    if found.open_until:
        say(f"Anybody may ask until {moment(found.open_until)}.")


def _enrolments() -> Enrolments:
    from bus.signals import ENROL_LIST, Enrolments
    from viscript.commands.bus.connection import ask

    return ask(ENROL_LIST, None, Enrolments, admin=True)


def _asking(who: str) -> Enrolment:
    """The one that is meant; `NotFound`."""
    from viscript.errors import NotFound

    for found in _enrolments().pending:
        if found.key == typed.key_or_none(who) or found.fingerprint == who.lower():
            return found
    raise NotFound(f"nobody asks to be admitted with {who}; see: viscript bus keys pending")


@app.command("open", epilog=examples("viscript bus keys open 600", "viscript bus keys open 0"))
def open_(
    seconds: Annotated[float, typer.Argument(metavar="SECONDS", min=0, help="0 closes.")] = 600.0,
) -> None:
    """Let unknown keys ask to be admitted for a while. Asking gives them nothing yet."""
    from bus.signals import ENROL_OPEN, Opening
    from viscript.commands.bus.connection import ask
    from viscript.commands.bus.topics import done

    ask(ENROL_OPEN, Opening(seconds), dict, admin=True)
    done({"seconds": seconds}, f"open for {seconds:g} s" if seconds else "closed")


@app.command(epilog=examples("viscript bus keys accept FINGERPRINT --role app --name thermometer"))
def accept(who: Who, role: Roles, name: Name = "") -> None:
    """Admit who asks. Compare the fingerprint with what the other side shows."""
    from bus.signals import ENROL_ACCEPT, EnrolmentAnswer
    from viscript.commands.bus.connection import ask
    from viscript.commands.bus.topics import done

    found = _asking(who)
    answer = EnrolmentAnswer(found.key, name or found.name, role)
    ask(ENROL_ACCEPT, answer, dict, admin=True)
    done(
        {"accepted": found.key},
        f"{found.key} ({answer.name or '-'}) is allowed as {' '.join(role)}",
    )


@app.command()
def reject(who: Who) -> None:
    """Turn away who asks."""
    from bus.signals import ENROL_REJECT, EnrolmentAnswer
    from viscript.commands.bus.connection import ask
    from viscript.commands.bus.topics import done

    found = _asking(who)
    ask(ENROL_REJECT, EnrolmentAnswer(found.key), dict, admin=True)
    done({"rejected": found.key}, f"{found.key} ({found.name or '-'}) is turned away")

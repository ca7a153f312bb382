"""The audit log: what is kept, what is not, and that nobody fills the disk through it."""

import os

import msgspec

from viscript import audit
from viscript.audit import AuditLog, Line


class Asked(msgspec.Struct):
    select: list[str]
    data: str = "typed in secret"
    raw: bytes = b"\0"


def line(ts: float, result: str = "ok", text: str = "") -> Line:
    return Line(ts, "k" * 40, "me", "viscript.stop", {}, result, text)


def test_refusals_beyond_twenty_a_second_are_counted_not_written(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    for _ in range(300):
        log.write(line(1.0, "denied"))
    log.write(line(1.5))
    log.write(line(2.0, "denied"))
    log.close()
    lines = list(audit.read(tmp_path / "audit.jsonl"))
    assert [(x.ts, x.result, x.more) for x in lines] == [
        *[(1.0, "denied", 0)] * 20, (1.5, "ok", 0), (2.0, "denied", 280),
    ]  # fmt: skip


def test_what_only_looks_again_and_again_is_there_once_a_minute(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    for ts in (0.0, 1.0, 59.0, 61.0, 3.0):  # the last after a clock that was set back
        log.write_seldom(line(ts))
    log.close()
    assert [x.ts for x in audit.read(tmp_path / "audit.jsonl")] == [0.0, 61.0, 3.0]


def test_it_goes_on_in_a_new_file_and_the_oldest_go(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "MAX_BYTES", 4000)
    monkeypatch.setattr(audit, "KEPT", 2)
    log = AuditLog(tmp_path / "audit.jsonl")
    for number in range(200):
        log.write(line(float(number), text="x" * 100))
    log.close()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["audit.1.jsonl", "audit.2.jsonl", "audit.jsonl"]
    found = [int(x.ts) for x in audit.read(tmp_path / "audit.jsonl")]
    assert found == list(range(found[0], 200))
    assert all(path.stat().st_size <= 4000 for path in tmp_path.iterdir())


def test_what_was_there_is_appended_to_never_replaced(tmp_path):
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"torn {\n")
    for _ in range(2):
        log = AuditLog(path)
        log.write(line(1.0))
        log.close()
    assert path.read_bytes().startswith(b"torn {\n")
    assert len(list(audit.read(path))) == 2
    assert not os.access(path, os.X_OK)


def test_secrets_and_raw_bytes_are_not_kept_and_much_is_cut():
    assert audit.shown(Asked(["a"])) == {"select": ["a"]}
    assert len(audit.shown(Asked(["x" * 10_000]))) == audit.MAX_ASKED


def test_a_link_in_its_place_is_not_followed(tmp_path, caplog):
    (tmp_path / "elsewhere").touch()
    (tmp_path / "audit.jsonl").symlink_to(tmp_path / "elsewhere")
    AuditLog(tmp_path / "audit.jsonl").write(line(1.0))
    assert (tmp_path / "elsewhere").read_bytes() == b""
    assert "cannot be written" in caplog.text

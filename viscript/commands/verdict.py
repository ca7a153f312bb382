"""What people read of a job: its targets, and what it has come to."""

from __future__ import annotations

from viscript.commands.list import remark
from viscript.errors import BY_NAME, Failed, Unknown, ViscriptError
from viscript.protocol import Job, Step


def describe(step: Step) -> str:
    """A target and what is known of it, for people."""
    name = f"{step.app} (ID {step.id})" if step.id else step.app
    state = step.launch.state if step.launch else step.state
    return f"{name} is {state}"


def sentence(step: Step) -> str:
    """What the daemon says of a step that went well."""
    name = f"{step.app} (ID {step.id})" if step.id else step.app
    return f"{name} {step.text or step.state}"


def verdict(job: Job) -> ViscriptError | None:
    """What a job that has ended says as an error; None when all is as wanted."""
    if job.state == "done":
        return None
    bad = [step for step in job.steps if step.state != "done"]
    text = "; ".join(_complaint(step) for step in bad[:10])
    if len(bad) > 10:
        text += f"; and {len(bad) - 10} more: viscript job {job.job}"
    if job.state == "unknown":
        return Unknown(f"unknown, job {job.job}: {text}", job=job.job)
    kinds = {step.error for step in bad if step.error}
    kind = BY_NAME.get(kinds.pop(), Failed) if len(kinds) == 1 else Failed
    return kind(text or f"job {job.job} is {job.state}")


def _complaint(step: Step) -> str:
    name = f"{step.app} (ID {step.id})" if step.id else step.app
    why = remark(step.launch) if step.launch and step.error == "failed" else ""
    tail = f"; see: viscript logs {step.id}" if step.error == "failed" and step.id else ""
    head = "" if step.text.startswith(step.app) else f"{name} "
    return f"{head}{step.text}" + (f": {why}" if why else "") + tail

"""What a build tells while it runs: frozen events, in order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted:
    """A step that changes files begins, or is found in the cache.

    `step` identifies it in this build; `name` is what a person reads: `[web 3/7] RUN …`.
    """

    step: str
    name: str
    line: int
    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCached:
    """The step's result was there already."""

    step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutput:
    """A piece of what the step's command printed, whole lines where it prints lines."""

    step: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """The step succeeded after `seconds`."""

    step: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailed:
    """The step failed after `seconds`; the build ends with a BuildError that says why."""

    step: str
    seconds: float
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildWarning:
    """Something that is allowed but probably not meant; `rule` is BuildKit's name for it."""

    rule: str
    message: str
    line: int


BuildEvent = StepStarted | StepCached | StepOutput | StepDone | StepFailed | BuildWarning

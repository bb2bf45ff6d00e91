"""Every error that a user can meet, with the OSC code and the exit code that it becomes."""

from __future__ import annotations


class StylusError(Exception):
    """Base of all our errors: one line that says what is wrong and, where it helps, what is allowed."""

    code = "internal"
    exit_code = 1


class BadRequest(StylusError):
    """A wrong option or a value out of its range."""

    code = "bad-request"
    exit_code = 2


class NotFound(StylusError):
    """A file, style, preset or model name that is not there."""

    code = "not-found"
    exit_code = 2


class UnsupportedAudio(StylusError):
    """A file that is not audio, is damaged, or is outside the range that we take."""

    code = "unsupported-audio"
    exit_code = 2


class NotAllowed(StylusError):
    """A place that may not be read or written."""

    code = "not-allowed"
    exit_code = 2


class NoModel(StylusError):
    """Weights that cannot be had: not downloaded, damaged, or in a form that we refuse."""

    code = "no-model"
    exit_code = 2


class OutOfMemory(StylusError):
    """The device or the machine has no memory left for this render."""

    code = "out-of-memory"


class DiskFull(StylusError):
    """No room left where the stem should go."""

    code = "disk-full"


class Busy(StylusError):
    """Somebody else is at it, or the queue is full; what was asked may be asked again later."""

    code = "busy"
    exit_code = 2


class Cancelled(StylusError):
    """The user stopped the render; a progress callback raises it."""

    code = "cancelled"
    exit_code = 130


class Internal(StylusError):
    """A failure of ours."""

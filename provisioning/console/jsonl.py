"""Events as JSON lines, with the names of OpenTelemetry's log data model in snake case."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence

from provisioning.base import events
from provisioning.base.distributions import own_version
from provisioning.base.outcome import BuildReport
from provisioning.console.listener import Listener, fields_of, kind_of, words

PROGRESS_EVERY_S = 10.0
SEVERITY_NUMBERS = {logging.DEBUG: 5, logging.INFO: 9, logging.WARNING: 13, logging.ERROR: 17, logging.CRITICAL: 21}


class JsonListener(Listener):
    """One JSON object a line: timestamp, severity_text, severity_number, event_name, body, attributes, resource."""

    wanted = logging.DEBUG
    _resource: Mapping[str, object] | None = None
    _progress_at = 0.0

    def show(self, record: logging.LogRecord) -> None:
        """Write the record; progress at most every PROGRESS_EVERY_S."""
        if kind_of(record) == events.PROGRESS and not self._progress_is_due():
            return
        name = str(getattr(record, "kind", ""))
        self._write(record.created, record.levelno, name, words(record), fields_of(record))

    def finish(self, report: BuildReport, summary: Sequence[tuple[str, str]] = ()) -> None:
        """Write the outcome with the fields of the build report, the summary and the number of warnings."""
        level = logging.ERROR if report.outcome == "FAILURE" else logging.INFO
        said = ", ".join(text for text, _ in summary)
        fields = {**dataclasses.asdict(report), "summary": said or None, "warnings": self.warning_count}
        self._write(time.time(), level, events.PREFIX + "outcome", report.line(), fields)

    def _progress_is_due(self) -> bool:
        now = time.monotonic()
        due = now - self._progress_at >= PROGRESS_EVERY_S
        self._progress_at = now if due else self._progress_at
        return due

    def _write(self, at: float, level: int, name: str, body: str, fields: Mapping[str, object]) -> None:
        if self._resource is None:
            self._resource = _resource()
        when = dt.datetime.fromtimestamp(at, dt.timezone.utc).isoformat(timespec="microseconds")
        line = {
            "timestamp": when.replace("+00:00", "Z"),
            "severity_text": logging.getLevelName(level).replace("WARNING", "WARN"),
            "severity_number": SEVERITY_NUMBERS.get(level, 9),
            "event_name": name,
            "body": body,
            "attributes": dict(fields),
            "resource": self._resource,
        }
        self.stream.write(json.dumps(line, default=str) + "\n")
        self.stream.flush()


def _resource() -> Mapping[str, object]:
    return {
        "service.name": "flightcache",
        "service.version": own_version(),
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
    }

"""Logs: one JSON line an event on standard error."""

import logging
import sys

import structlog

Log = structlog.stdlib.BoundLogger


def configure(level: str) -> None:
    """Set up structlog for this process; `level` is a name of the logging module, in any case."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def get(service: str) -> Log:
    """Return a logger whose lines carry the service's name."""
    log: Log = structlog.get_logger().bind(service=service)
    return log

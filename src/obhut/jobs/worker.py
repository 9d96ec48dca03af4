"""Runs the job worker of this machine; any number of machines may run one on the same control database."""

from __future__ import annotations

from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings


def work(settings: Settings, clock: Clock, *, until_empty: bool = False) -> None:
    """Work on jobs until SIGTERM, or until there is none left.

    Args:
        settings: of this installation; the control database is open.
        clock: the time that use cases see.
        until_empty: end when the queue is empty instead of waiting.
    """
    from obhut.jobs import tasks  # the job engine needs Django, which is configured at run time

    engine = tasks.configure(settings, clock)
    # psycopg's own pool serves the worker; use cases run in threads with Django's connection of the thread.
    with engine.replace_connector(engine.connector.get_worker_connector()) as worker:  # type: ignore[attr-defined]  # DjangoConnector has it
        worker.run_worker(queues=[tasks.QUEUE], concurrency=2, wait=not until_empty, install_signal_handlers=not until_empty, name="obhut")

"""Prometheus' text format of the broker's figures.

Imported only when somebody asks: prometheus-client costs 50 ms to import. No label has values that
peers choose without bound: refusals and ends are words and numbers of ours, topics are cut off.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bus.routing.watching import Figures

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_TOPICS = 256  # told one by one; the rest is only in the sums
PREFIX = "viscript_bus_"

# name, help, attribute of Varz
GAUGES = (
    ("start_time_seconds", "When the broker started, Unix seconds.", "start"),
    ("resident_bytes", "Memory of the broker's process.", "rss"),
    ("sessions", "Sessions that are open.", "sessions"),
    ("allowed_keys", "Keys on the access list.", "keys"),
    ("subscriptions", "Subscriptions of all sessions.", "subscriptions"),
    ("services", "Offers to serve a subject, of all sessions.", "services"),
    ("requests_in_flight", "Requests that wait for a reply.", "inflight"),
    ("queued_bytes", "Bytes that wait at the broker for slow readers.", "queued_bytes"),
    ("topics", "Durable topics.", "topics"),
)
COUNTERS = (
    ("cpu_seconds", "Processor time of the broker's process.", "cpu_seconds"),
    ("received_messages", "Messages from sessions to the broker.", "messages_in"),
    ("sent_messages", "Messages from the broker to sessions.", "messages_out"),
    ("received_bytes", "Bytes of heads and bodies from sessions.", "bytes_in"),
    ("sent_bytes", "Bytes of heads and bodies to sessions.", "bytes_out"),
    ("lost_messages", "Messages dropped for slow readers.", "lost"),
)
TOPIC_GAUGES = (
    ("topic_messages", "Messages that the topic holds.", "messages"),
    ("topic_bytes", "Bytes that the topic holds.", "bytes"),
    ("topic_last_sequence", "Sequence of the topic's newest message.", "last"),
    ("topic_consumers", "Named consumers of the topic.", "consumers"),
)


def text(figures: Figures) -> str:
    """`figures` for a scraper of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Broker(figures))
    return generate_latest(registry).decode()


class _Broker(Collector):
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        figures, varz = self._figures, self._figures.varz
        build = GaugeMetricFamily(
            f"{PREFIX}info", "Always 1; tells the version.", labels=["version"]
        )
        build.add_metric([varz.version], 1)
        yield build
        healthy = "Whether the broker finds itself well; /healthz names what is wrong."
        yield GaugeMetricFamily(f"{PREFIX}healthy", healthy, value=float(figures.health.ok))
        for name, what, attribute in GAUGES:
            yield GaugeMetricFamily(PREFIX + name, what, value=getattr(varz, attribute))
        for name, what, attribute in COUNTERS:
            yield CounterMetricFamily(PREFIX + name, what, value=getattr(varz, attribute))
        yield from self._of_the_process()
        yield from self._by_reason()
        yield from self._by_topic()

    def _of_the_process(self) -> Iterator[Metric]:
        vitals = self._figures.vitals
        for name, what, value in (
            ("open_files", "Open files of the broker's process.", vitals.fds),
            ("max_open_files", "How many it may have; a connection takes one.", vitals.max_fds),
            (
                "longest_turn_seconds",
                "Longest turn of the loop in the last 10 to 20 s.",
                vitals.lag,
            ),
        ):
            yield GaugeMetricFamily(PREFIX + name, what, value=value)

    def _by_reason(self) -> Iterator[Metric]:
        refused = CounterMetricFamily(
            f"{PREFIX}refused", "Connections and commands refused, by error.", labels=["error"]
        )
        for error, count in sorted(self._figures.varz.refused.items()):
            refused.add_metric([error], count)
        yield refused
        closed = CounterMetricFamily(
            f"{PREFIX}sessions_closed", "Sessions that ended, by number of the end.", labels=["num"]
        )
        for num, count in sorted(self._figures.closed.items()):
            closed.add_metric([str(num)], count)
        yield closed

    def _by_topic(self) -> Iterator[Metric]:
        topics = sorted(self._figures.topics, key=lambda info: info.config.topic)
        stored = sum(info.bytes for info in topics)
        yield GaugeMetricFamily(f"{PREFIX}stored_bytes", "Bytes of all topics.", value=stored)
        for name, what, attribute in TOPIC_GAUGES:
            family = GaugeMetricFamily(PREFIX + name, what, labels=["topic"])
            for info in topics[:MAX_TOPICS]:
                family.add_metric([info.config.topic], getattr(info, attribute))
            yield family

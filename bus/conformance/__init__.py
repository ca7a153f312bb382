"""Whether a broker speaks SB/1: the golden vectors and the specification's dialogues, as a black box.

For a broker of one's own that holds nothing dear: the checks publish, subscribe, serve, make and remove a
durable topic, and with an admin's key let strangers ask and admit keys for a moment.
Only sockets and the vectors are used, none of this package's codecs.
"""

from bus.conformance.results import FAILED, PASSED, SKIPPED, Result
from bus.conformance.run import exit_code, run

__all__ = ["FAILED", "PASSED", "SKIPPED", "Result", "exit_code", "run"]

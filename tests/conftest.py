"""What holds for every test."""

import signal

from hypothesis import settings

# How long an example takes is the machine's business: the tests share it with others.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# A shell without job control starts what it puts into the background with SIGINT ignored, and every
# program that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

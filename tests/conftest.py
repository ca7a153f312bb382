"""What holds for every test."""

import signal

# A shell without job control starts what it puts into the background with SIGINT ignored, and every
# program that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

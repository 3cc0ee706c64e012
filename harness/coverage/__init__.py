"""Which of Xen's lines ran: counted by QEMU, mapped by addr2line, held against a change.

`plugin.py` builds the TCG plugin, `counters.py` is what it counts into, `lines.py` knows which
instructions a line became, `changed.py` which lines a change touched, `lcov.py` tells other tools.
"""

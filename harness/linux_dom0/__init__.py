"""A Debian dom0 with Xen's own toolstack, made in seconds and driven over SSH.

packages (which, and where from) -> files (what of them) -> image (a kernel and a cpio) -> machine
(booted, or from a snapshot) -> ssh (run, put, get). Facts about each step are in the step's module.
"""

"""The command line: one file per verb, each a thin layer over the Python API.

A verb reads its run folder through `runs`, reports through a `Console` (progress on stderr, one JSON document on stdout
with ``--json``), and ends by returning or by raising an `Fn3hwError`; `main` alone turns errors into exit statuses.
"""

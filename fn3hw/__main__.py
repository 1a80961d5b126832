"""``python -m fn3hw``: the command line, where a program such as torchrun wants a module."""

from fn3hw.cli.main import main

main()

"""`python -m eighties` is the command `80s`."""

from .cli import main

main()

"""``python -m natalog``: the command line."""

from natalog.cli import main

main()

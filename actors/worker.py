"""``python -m natalog.actors.worker``: a query worker; see `natalog.actors.workers`."""

from __future__ import annotations

from natalog.actors.workers import main

if __name__ == "__main__":
    main()

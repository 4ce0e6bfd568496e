"""EDN, the text form of data: `read`, `read_all`, `write`, `write_pretty`.

>>> read("[:find ?n :where [?e :name ?n]]")
[:find, ?n, :where, [?e, :name, ?n]]
>>> write(read("#{[1 2]}"))
'#{[1 2]}'
"""

from __future__ import annotations

from natalog.core.edn_read import TagHandlers, parse_instant, read, read_all
from natalog.core.edn_write import write, write_pretty

__all__ = ["TagHandlers", "parse_instant", "read", "read_all", "write", "write_pretty"]

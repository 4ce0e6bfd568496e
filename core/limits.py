"""Every bound of Natalog in one place; the unit is the last word of a name.

A limit exists so that bad or huge input costs a clear error instead of memory or time without end.
"""

# --- text and wire -------------------------------------------------------------------------------
NAME_LENGTH_MAX = 64
"""Characters of a database or branch name."""
NESTING_DEPTH_MAX = 512
"""Levels of nested collections that the EDN reader and the msgpack codec accept."""
COLLECTIONS_READ_MAX = 1_000_000
"""Vectors, maps, sets, lists and tagged values in one text or one msgpack payload; each costs some
80 bytes of memory, and only one of payload."""
SAME_HASH_MAX = 8
"""Members of a set or keys of a map, on average, that share one hash value; chosen numbers and
UUIDs may all share one, and then every look-up walks through all of them."""
ENCODED_DEPTH_MAX = 128
"""Levels of sets, lists and tagged values inside each other in msgpack, where each level holds the
bytes of the next."""
KEY_DEPTH_MAX = 64
"""Levels of sets and map keys inside each other; each level hashes all that it holds again."""
INTEGER_DIGITS_MAX = 4_000
"""Digits of an integer literal (Python's own conversion limit is 4,300)."""
DECIMAL_EXPONENT_MAX = 8_000
"""Largest size (up or down) of a decimal's exponent; arithmetic with integers expands it."""
KEYWORDS_KEPT_MAX = 16_384
"""Keywords that stay in memory although nothing uses them, by spelling."""
KEYWORD_KEPT_LENGTH_MAX = 128
"""Characters of such a keyword."""
REQUEST_BYTES_MAX = 8 * 1024 * 1024
"""Payload and headers of one request."""

# --- identity ------------------------------------------------------------------------------------
LANE_BITS = 32
"""Entities and transactions of one lane (a line of descent) fit in this many bits."""
TX_BASE = 2**52
"""Transaction ids start here; entity ids stay below."""
LANES_MAX = 2**20
"""Lanes of one database: entity ids must stay below ``TX_BASE``."""

# --- values --------------------------------------------------------------------------------------
LONG_MIN = -(2**63)
LONG_MAX = 2**63 - 1
TUPLE_LENGTH_MAX = 8
"""Elements of a tuple value."""

# --- transactions --------------------------------------------------------------------------------
TRANSACTION_DATOMS_MAX = 1_000_000
"""Datoms that one transaction may produce."""
CONFLICTS_MAX = 20
"""Entities or values that an error about a refused schema change names."""
BLOCK_TRANSACTIONS_MAX = 512
"""Transactions committed in one block of the log."""
BLOCK_BYTES_TARGET = 512 * 1024
"""A block is closed when its records reach this size."""

# --- queries -------------------------------------------------------------------------------------
QUERY_ROWS_MAX = 10_000_000
"""Rows of an intermediate or final result."""
QUERY_TIMEOUT_S = 30.0
"""Deadline of a query that names none."""
QUERY_TIMEOUT_MAX_S = 600.0
"""The latest deadline of a read, whatever it asks for: threads that answer reads are few."""
PARSED_QUERIES_MAX = 1_024
"""Parsed queries and pull patterns that are kept, each."""
KEPT_FORM_SIZE_MAX = 4_096
"""Size of a query or pattern (characters and values in it) that is kept."""
DERIVED_MAX = 8_192
"""Parts of parsed queries, such as lists of clauses, for which a derivation is kept, each kind."""
SHARED_ROWS_MAX = 131_072
"""Rows of one integer that are kept to be in other answers as well; 12 to 30 MB."""
CLAUSE_NESTING_MAX = 64
"""Levels of ``not``, ``or`` and ``and`` within each other."""
CONSTANT_NESTING_MAX = 100
"""Levels of collections in a constant of a query."""
RANGE_ITEMS_MAX = 1_000_000
"""Numbers that one call of ``range`` makes."""
REGEX_LENGTH_MAX = 2_000
"""Characters of a regular expression."""
REGEX_MEMORY_BYTES_MAX = 4 * 1024 * 1024
"""Memory for the compiled program of one regular expression."""
REGEXES_KEPT_MAX = 32
"""Compiled regular expressions that are kept."""
NUMBER_BITS_MAX = 32_768
"""Bits of an integer or ratio that arithmetic in a query may make."""
STRING_LENGTH_MAX = 16 * 1024 * 1024
"""Characters of a string that a function in a query may make."""
PULL_DEPTH_MAX = 10_000
"""Levels that one pull may recurse."""
PULL_ENTITIES_MAX = 1_000_000
"""Entities that one pull may reach, each counted as often as it appears in the result."""
PULL_LIMIT_DEFAULT = 1000
"""Values of a many-valued attribute that a pull returns when its pattern names no limit."""

# --- index leaves --------------------------------------------------------------------------------
LEAF_ROWS_MAX = 2048
"""Rows of an index leaf; a fuller one splits."""

# --- segments ------------------------------------------------------------------------------------
SEGMENT_BYTES_MAX = 512 * 1024 * 1024
"""Contents of one segment before compression; only a single huge value comes near."""

# --- actors --------------------------------------------------------------------------------------
REQUESTS_WAITING_MAX = 8192
"""Requests without an answer in one process; those that read and those that change each."""
READS_WAITING_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of the payloads of those that read; each is decoded when it comes in."""
CHANGES_WAITING_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of the payloads of those that change something; they are decoded one after the other."""
ANSWER_BYTES_MAX = 128 * 1024 * 1024
"""Bytes of one answer."""
ANSWERS_BYTES_MAX = 256 * 1024 * 1024
"""Bytes of large answers that are on their way at the same time."""
MAILBOX_MESSAGES_MAX = 4096
"""Messages that wait in one actor's mailbox before senders hear ``Busy``."""
ASK_TIMEOUT_S = 30.0
"""How long an ask waits when the caller names no deadline."""
METRIC_DATABASES_MAX = 100
"""Databases that one process names in its metrics; the others share one label."""
METRIC_BRANCHES_MAX = 100
"""Branches beside the main ones that one process names in its metrics."""

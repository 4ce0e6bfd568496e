"""The error tree of Natalog.

Every error has a stable ``code`` (its class name), a ``type`` (a keyword in the style of Datahike,
such as ``transact/unique``, without the colon), a sentence that names the offending data, and the
``data`` themselves.  The code travels over the wire; `error_from_wire` makes the same class again.

::

    NatalogError
    ├── ReadError                      text or bytes that cannot be read
    │   ├── EdnSyntax                  malformed EDN
    │   ├── CodecError                 malformed or unencodable msgpack or JSON
    │   └── LimitExceeded              nesting, size or digits beyond core.limits
    ├── TransactError                  a transaction that is refused
    │   ├── TransactSyntax             malformed operation or argument
    │   ├── TransactSchema             undeclared attribute, wrong type, refused schema change
    │   ├── TransactUnique             value of a unique attribute already taken
    │   ├── TransactUpsert             identities that name different entities
    │   ├── TransactCas                compare failed
    │   ├── TransactPurge              purge without history or of nothing
    │   ├── TransactMaxLength          value too long
    │   ├── TransactEnsure             entity spec violated
    │   └── TransactPredicate          attribute predicate violated or unknown
    ├── EntityError                    entity ids and lookup refs
    │   ├── EntityIdMissing            nothing has this id or lookup ref
    │   ├── EntityIdSyntax             not an entity id
    │   ├── LookupRefUnique            lookup ref over an attribute that is not unique
    │   └── LookupRefSyntax            malformed lookup ref
    ├── QueryError                     queries and pull patterns
    │   ├── QueryParse                 query that cannot be read
    │   ├── FindParse / WhereParse / BindingParse / RuleParse / ReturnParse / PullParse
    │   ├── QueryWhere                 unbound variable, unknown function or predicate
    │   ├── QueryBinding               input that does not fit its binding form
    │   ├── QueryFunction              a function or aggregate that failed on its arguments
    │   ├── QueryTimeout               deadline passed
    │   ├── QueryLimit                 too many rows, too much fuel
    │   └── QueryCancelled
    ├── ViewError                      as-of, since, history
    │   ├── NoHistory                  the database keeps no history
    │   ├── InvalidTimePoint           neither a transaction id nor an instant
    │   └── ViewRefused                operation that has no meaning on this view
    ├── IndexError_                    raw index access (code ``IndexAccess``)
    ├── DatabaseError
    │   ├── DatabaseNotFound / DatabaseExists / InvalidName / InvalidConfig
    ├── BranchError
    │   ├── BranchNotFound / BranchExists / BranchProtected / ParentsRequired
    │   ├── CommitNotFound / Erased / MergeConflict / ErasureRefused
    ├── ServiceError                   the service, not the request
    │   ├── BadRequest / TooLarge / Forbidden / NotImplementedYet (code ``NotImplemented``)
    │   ├── Busy / DeadlineExceeded / Unavailable / CommitUnknown / Fenced
    │   └── Internal
    └── StorageError
        ├── LogCorrupt / PortInUse / DataDirectoryInUse / ServerFailed
        ├── BackupCorrupt              a backup that was cut or changed
        ├── SegmentCorrupt             stored bytes that are not what their name says
        └── SegmentMissing             a segment that a value needs and the store lacks
"""

from __future__ import annotations

from typing import Any, ClassVar


class NatalogError(Exception):
    """Root of all errors.  ``code`` and ``type`` are stable; ``data`` names what was at fault."""

    code: ClassVar[str] = "NatalogError"
    default_type: ClassVar[str | None] = None

    def __init__(self, message: str, *, type: str | None = None, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.type: str | None = type if type is not None else self.default_type
        self.data: dict[str, Any] = data

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" not in cls.__dict__:
            cls.code = cls.__name__
        _CLASSES.setdefault(cls.code, cls)  # a kind of its own inside keeps the code of its parent

    def to_wire(self) -> dict[str, Any]:
        """``{code, error, message, data}``: the body of an error reply."""
        return {
            "code": self.code,
            "error": self.type,
            "message": self.message,
            "data": self.data,
        }


_CLASSES: dict[str, type[NatalogError]] = {"NatalogError": NatalogError}


def error_from_wire(body: dict[str, Any]) -> NatalogError:
    """Make the error that ``body`` (see `NatalogError.to_wire`) describes.

    An unknown code, as a newer service may send, becomes a plain `NatalogError` that keeps it in
    ``data["code"]``.
    """
    code = str(body.get("code", "NatalogError"))
    cls = _CLASSES.get(code)
    raw = body.get("data")
    data = {str(k): v for k, v in raw.items()} if isinstance(raw, dict) else {}
    message = str(body.get("message", ""))
    if cls is None:
        data["code"] = code
        cls = NatalogError
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.message = message
    kind = body.get("error")
    error.type = str(kind) if kind is not None else cls.default_type
    error.data = data
    return error


def error_classes() -> dict[str, type[NatalogError]]:
    """Every error class by its code."""
    return dict(_CLASSES)


# --- reading text and bytes ----------------------------------------------------------------------


class ReadError(NatalogError):
    """Text or bytes that cannot be read."""

    default_type = "read/syntax"


class EdnSyntax(ReadError):
    """Malformed EDN."""

    default_type = "read/edn"


class CodecError(ReadError):
    """Malformed msgpack or JSON, or a value that has no encoding."""

    default_type = "read/codec"


class LimitExceeded(ReadError):
    """Input deeper, longer or larger than `core.limits` allows."""

    default_type = "read/limit"


# --- transactions --------------------------------------------------------------------------------


class TransactError(NatalogError):
    """A transaction that is refused; nothing of it is applied."""

    default_type = "transact/syntax"


class TransactSyntax(TransactError):
    """Malformed operation or argument, unknown operation, nil value, misplaced tempid."""


class TransactSchema(TransactError):
    """Undeclared attribute, value of the wrong type, refused schema change."""

    default_type = "transact/schema"


class TransactUnique(TransactError):
    """The value of a unique attribute is taken."""

    default_type = "transact/unique"


class TransactUpsert(TransactError):
    """Identities that resolve to different entities, or to another than the given id."""

    default_type = "transact/upsert"


class TransactCas(TransactError):
    """Compare-and-set found another value."""

    default_type = "transact/cas"


class TransactPurge(TransactError):
    """Purge without history, or of a lookup ref that matches nothing."""

    default_type = "transact/purge"


class TransactMaxLength(TransactError):
    """Value longer than ``:db/maxLength`` or a configured cap."""

    default_type = "transact/max-length"


class TransactEnsure(TransactError):
    """Entity lacks what its ``:db/ensure`` spec demands."""

    default_type = "transact/ensure"


class TransactPredicate(TransactError):
    """An attribute or entity predicate said no, or is not registered."""

    default_type = "transact/attr-pred"


# --- entity ids ----------------------------------------------------------------------------------


class EntityError(NatalogError):
    """Entity ids, idents and lookup refs that cannot be used."""

    default_type = "entity-id/syntax"


class EntityIdMissing(EntityError):
    """Nothing has this lookup ref or ident."""

    default_type = "entity-id/missing"


class EntityIdSyntax(EntityError):
    """Not an entity id, ident or lookup ref."""


class LookupRefUnique(EntityError):
    """Lookup ref over an attribute that is not unique."""

    default_type = "lookup-ref/unique"


class LookupRefSyntax(EntityError):
    """Lookup ref that is not exactly ``[attribute value]``."""

    default_type = "lookup-ref/syntax"


# --- queries -------------------------------------------------------------------------------------


class QueryError(NatalogError):
    """Root of everything that is wrong with a query or a pull pattern."""

    default_type = "query/where"


class QueryParse(QueryError):
    """A query that cannot be read."""

    default_type = "parser/query"


class FindParse(QueryParse):
    """A find clause that cannot be read."""

    default_type = "parser/find"


class WhereParse(QueryParse):
    """A where clause that cannot be read."""

    default_type = "parser/where"


class BindingParse(QueryParse):
    """A binding form or input declaration that cannot be read."""

    default_type = "parser/binding"


class RuleParse(QueryParse):
    """A rule that cannot be read: arity, unknown rule, unstratified negation."""

    default_type = "parser/rule"


class ReturnParse(QueryParse):
    """``:keys``, ``:strs``, ``:syms``, ``:order-by``, ``:limit`` or ``:offset`` that do not fit."""

    default_type = "parser/return-maps"


class PullParse(QueryParse):
    """A pull pattern that cannot be read."""

    default_type = "parser/pull"


class QueryWhere(QueryError):
    """Unbound variables, unknown function or predicate."""


class QueryBinding(QueryError):
    """An input that does not fit its binding form."""

    default_type = "query/binding"


class QueryFunction(QueryError):
    """A function or aggregate failed on its arguments."""

    default_type = "query/function"


class QueryTimeout(QueryError):
    """The deadline of the query passed."""

    default_type = "query/timeout"


class QueryLimit(QueryError):
    """The query touches or returns more rows than it may."""

    default_type = "query/limit"


class QueryCancelled(QueryError):
    """The query was cancelled."""

    default_type = "query/cancelled"


# --- views and raw index access ------------------------------------------------------------------


class ViewError(NatalogError):
    """As-of, since and history views."""

    default_type = "temporal/view"


class NoHistory(ViewError):
    """As-of, since, history and purge need a database that keeps history."""

    default_type = "temporal/no-history"


class InvalidTimePoint(ViewError):
    """Neither a transaction id of this database nor an instant."""

    default_type = "temporal/time-point"


class ViewRefused(ViewError):
    """An operation that has no meaning on this view."""

    default_type = "temporal/refused"


class IndexError_(NatalogError):
    """Raw index access that cannot be answered: unknown index, attribute without AVET."""

    code = "IndexAccess"
    default_type = "index/access"


# --- databases and branches ----------------------------------------------------------------------


class DatabaseError(NatalogError):
    """Databases as a whole."""

    default_type = "database/error"


class DatabaseNotFound(DatabaseError):
    """No database has this name."""

    default_type = "db-does-not-exist"


class DatabaseExists(DatabaseError):
    """A database of this name exists."""

    default_type = "db-already-exists"


class InvalidName(DatabaseError):
    """A database or branch name that is not ``[A-Za-z0-9][A-Za-z0-9_-]*`` up to 64 characters."""

    default_type = "database/invalid-name"


class InvalidConfig(DatabaseError):
    """A configuration key or value that is not known."""

    default_type = "database/invalid-config"


class BranchError(NatalogError):
    """Branches and commits."""

    default_type = "branch/error"


class BranchNotFound(BranchError):
    """No branch has this name."""

    default_type = "branch-does-not-exist"


class BranchExists(BranchError):
    """A branch of this name exists."""

    default_type = "branch-already-exists"


class BranchProtected(BranchError):
    """The main branch cannot be deleted."""

    default_type = "cannot-delete-main-db-branch"


class ParentsRequired(BranchError):
    """A merge or forced branch names no parent."""

    default_type = "must-provide-at-least-one-parent"


class CommitNotFound(BranchError):
    """No commit has this id."""

    default_type = "commit-does-not-exist"


class Erased(BranchError):
    """The value lies before an erasure and can no longer be read."""

    default_type = "commit/erased"


class ErasureRefused(BranchError):
    """An erasure that would change more than it was asked to, or crossed another one; nothing was
    erased."""

    default_type = "erase/refused"


class MergeConflict(BranchError):
    """Both sides of a merge changed the same thing."""

    default_type = "merge/conflict"


# --- the service ---------------------------------------------------------------------------------


class ServiceError(NatalogError):
    """The service or the way to it, not what was asked."""

    default_type = "service/error"


class BadRequest(ServiceError):
    """A request that cannot be understood."""

    default_type = "service/bad-request"


class TooLarge(ServiceError):
    """A payload larger than the server accepts."""

    default_type = "service/too-large"


class Forbidden(ServiceError):
    """The user may not do this."""

    default_type = "service/forbidden"


class NotImplementedYet(ServiceError):
    """A verb of the contract that this version does not serve."""

    code = "NotImplemented"
    default_type = "service/not-implemented"


class Busy(ServiceError):
    """A mailbox is full; retry after ``data["retry_after_ms"]``."""

    default_type = "service/busy"


class DeadlineExceeded(ServiceError):
    """No answer came in time; what was asked may still happen."""

    default_type = "service/deadline"


class Unavailable(ServiceError):
    """Nobody serves this subject, or the connection is down."""

    default_type = "service/unavailable"


class CommitUnknown(ServiceError):
    """The outcome of an append is not known; retry with the same transaction id."""

    default_type = "service/commit-unknown"


class Fenced(ServiceError):
    """Another transactor has taken over the branch."""

    default_type = "service/fenced"


class Internal(ServiceError):
    """A defect of Natalog; the service goes on."""

    default_type = "service/internal"


# --- storage -------------------------------------------------------------------------------------


class StorageError(NatalogError):
    """The log and the server that keeps it."""

    default_type = "storage/error"


class LogCorrupt(StorageError):
    """A hole, a broken hash chain or an unreadable record in the log."""

    default_type = "storage/log-corrupt"


class BackupCorrupt(StorageError):
    """A file that is no backup, or one that was cut or changed."""

    default_type = "storage/backup-corrupt"


class SegmentCorrupt(StorageError):
    """A segment whose bytes are not those of its name, or mean nothing."""

    default_type = "storage/segment-corrupt"


class SegmentMissing(StorageError):
    """A segment that the store does not have."""

    default_type = "storage/segment-missing"


class PortInUse(StorageError):
    """The address is taken by another process."""

    default_type = "storage/port-in-use"


class DataDirectoryInUse(StorageError):
    """Another process serves this data directory."""

    default_type = "storage/data-directory-in-use"


class ServerFailed(StorageError):
    """The child nats-server did not start or ended."""

    default_type = "storage/server-failed"

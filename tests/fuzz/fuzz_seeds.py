"""Where fuzzing begins, by target: valid input of every kind, and all that once was a defect."""

from __future__ import annotations

from typing import Final

EDN: Final = [
    r"""[1 -2 3N 1.5 2.5M 7/2 ##NaN ##Inf "a\n\u00e9" \a \newline :k :a/b sym nil true #{1 [2]}]""",
    '{:a {:b (1 2 3)} [1] #{} "x" #inst "2020-01-31T10:20:30.123+01:00"}',
    '#uuid "00000000-0000-0000-0000-000000000007" ; comment',
    '[#_ignored 1 #natalog/bytes "00ff" #natalog/float 1.5 #"re+" #tag {:x 1} #:ns{:a 1 :_/b 2}]',
    '#natalog/keyword "a b" ',
    '[#natalog/int 5 #natalog/symbol "a b" ^:meta x 1e400 -0.0 1E-7M 00 +5]',
]
QUERY: Final = [
    "[:find ?n ?a :where [?e :name ?n] [?e :age ?a] [(> ?a 18)]]",
    '[:find (pull ?e [* {:boss [:name]}]) . :in $ :where [?e :name "Ann"]]',
    "[:find [?n ...] :in $ % :where (or [?e :name ?n] (and [?e :boss ?b] [?b :name ?n]))]",
    "[:find ?a (count ?e) (min 2 ?a) :with ?n :where [?e :age ?a ?t true] [?e :name ?n]]",
    "[:find ?x :where [?e :age ?a] (not-join [?e] [?e :boss ?b]) [(+ ?a 1) ?x]"
    " [(ground [1 2]) [?y ...]] :order-by [?x :desc] :limit 5 :offset 1]",
    "{:find [?e ?v] :keys [e v]"
    " :where [[?e _ ?v] [(get-else $ ?e :boss 0) ?b] [(tuple ?e ?b) ?p]]}",
    "[:find ?m :where [(q [:find (max ?a) . :where [_ :age ?a]] $) ?m]]",
    '[:find ?s :where [?e :name ?n] [(str ?n "x") ?s] [(re-find #"A.*" ?n)]'
    " [(missing? $ ?e :tag)]]",
]
PULL: Final = [
    "[*]",
    "[:name {:boss [:name {:boss ...}]} {:_boss 3}]",
    '[(:tag :limit 1 :as "tags") (default :age 0) (limit :part nil) {[:part :limit 2] [*]}]',
    '[[:name :xform f] :db/id "age"]',
]
RULES: Final = [
    "[[(rule ?x) [?x :age]] [(rule ?x) [?x :boss ?y] (rule ?y)]]",
    "[[(rule [?x]) (not (other ?x)) [?x :name]] [(other ?x) [?x :boss _]]]",
    "[[(rule ?x ?y) [(= ?x ?y)]] [(rule ?x) (rule ?x 1)]]",
]
TRANSACTION: Final = [
    '[[:db/add -1 :name "Cid"] {:db/id "t" :name "Dan" :boss -1 :tag #{:x} :part [{:age 1}]}]',
    '[[:db/retract 8 :age 40] [:db/retractEntity [:name "Ann"]] [:db.fn/cas 8 :age 30 31]]',
    "[{:db/ident :new :db/valueType :db.type/long :db/cardinality :db.cardinality/one} {:new 5}]",
    '[[:db/purge 8 :name "Ann"] [:db.purge/entity 9] [:db.history.purge/before #inst "2020"]]',
    '{:tx-data [{:name "Eve" :_boss 8}] :tx-meta {:db/txInstant #inst "2030"}}',
    '[[:db/add :db/current-tx :name "tx"] {:db/id [:name "Ann"] :age nil :pair ["Ann" 30]}]',
    "[{:db/ident :name :db/cardinality :db.cardinality/many} [:db.fn/call f 1]]",
    '[[8 :age 5 4503599627370498 true] {:name "Ann" :db/ensure :spec :boss {:name "X"}}]',
]
JSON: Final = [
    '{"query": "[:find ?e :where [?e :name]]", "args": [1, 2.5, null, true, ":kw", "::text"]}',
    '[1e400, -0.0, 12345678901234567890, "\\ud800", {"a": {"b": []}}]',
]
MSGPACK: Final = [
    "82a16101a162c0",
    "93c0c3cb3ff8000000000000",
    "d60161623a63",
    "c70308930102a16193",
    "d8 03 00000000000000000000000000000007",
    "d7040000016f5e66e800",
    "c7040a92a1740a",
    "c7070792cb3ff00000",
]

SEEDS: Final[dict[str, list[bytes]]] = {
    "edn": [text.encode() for text in [*EDN, *QUERY, *PULL, *RULES, *TRANSACTION]],
    "msgpack": [bytes.fromhex(text) for text in MSGPACK],
    "json": [text.encode() for text in JSON],
    "query": [text.encode() for text in QUERY],
    "pull": [text.encode() for text in PULL],
    "rules": [text.encode() for text in RULES],
    "transaction": [text.encode() for text in TRANSACTION],
}
"""Input that the targets accept, or nearly."""

ONCE_DEFECTS: Final[dict[str, list[bytes]]] = {
    "query": [
        b'[:find ?e :where [?e "" ?v]]',
        b'[:find ?e :where [["kind" ""] :name ?e]]',
        b'[:find ?e :where [?e ":" ?v]]',
    ],
    "pull": [b'["" {":" [*]}]'],
}
"""Input that was answered with another error than ours, by target."""

_WORDS: Final = """
:find :in :with :where :keys :strs :syms :order-by :limit :offset ?e ?a ?v ?n $ $2 % _ ... . or and
not or-join not-join pull count count-distinct sum avg min max median distinct rand sample ground
get-else get-some missing? tuple untuple q = not= < > <= >= + - * / str re-find :name :age :tag
:boss :part :pair :_boss :db/id :db/ident :db/add :db/retract :db/retractEntity :db.fn/cas :db/cas
:db.fn/call :db/purge :db.purge/entity :db.history.purge/before :db/valueType :db/cardinality
:db.cardinality/one :db.cardinality/many :db.type/long :db.type/string :db.type/ref :db.type/tuple
:db/unique :db.unique/identity :db.unique/value :db/isComponent :db/index :db/noHistory
:db/tupleAttrs :db/tupleTypes :db/tupleType :db/maxLength :db/ensure :db/current-tx :db/txInstant
:tx-data :tx-meta :default :as :limit :xform * rule nil true false ##NaN ##Inf #inst #uuid
#natalog/bytes #{ #_ #" #:a{
"""
WORDS: Final = _WORDS.split()
"""Words that mean something to a parser."""

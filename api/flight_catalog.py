"""What Flight SQL's commands about the catalog answer: facts, catalogs, schemas, tables and types.

Source: the comments of format/FlightSql.proto of Apache Arrow, which give every schema.
"""

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version as version_of
from typing import Any

import pyarrow as pa

from api.flight_statements import IDLE_S
from api.flightsql import (
    CommandGetCatalogs,
    CommandGetCrossReference,
    CommandGetDbSchemas,
    CommandGetExportedKeys,
    CommandGetImportedKeys,
    CommandGetPrimaryKeys,
    CommandGetSqlInfo,
    CommandGetTables,
    CommandGetTableTypes,
    CommandGetXdbcTypeInfo,
)
from api.gate import MAX_TEXT_BYTES
from store import discovery
from store.errors import QueryError
from store.schema import TABLES

CATALOG, SCHEMA = "memory", "main"
"""As users write them before a view, and as the gate lets them."""

TABLE, VIEW = "TABLE", "VIEW"

LONGEST_PATTERN = 200
"""Characters; names are shorter."""


def _schema(*columns: tuple[str, pa.DataType] | tuple[str, pa.DataType, bool]) -> pa.Schema:
    """A schema of names, types and, where it is not True, whether nulls may stand there."""
    return pa.schema([pa.field(*column) for column in columns])


_TEXT = pa.string()
_INT32_LISTS = pa.map_(pa.int32(), pa.list_(pa.field("$data$", pa.int32())))

VALUES = {
    "string_value": pa.string(),
    "bool_value": pa.bool_(),
    "bigint_value": pa.int64(),
    "int32_bitmask": pa.int32(),
    "string_list": pa.list_(pa.field("item", pa.string())),
    "int32_to_int32_list_map": _INT32_LISTS,
}
"""The members of the union that a fact's value is, in their order."""

_KEY_COLUMNS = (
    ("pk_catalog_name", _TEXT),
    ("pk_db_schema_name", _TEXT),
    ("pk_table_name", _TEXT, False),
    ("pk_column_name", _TEXT, False),
    ("fk_catalog_name", _TEXT),
    ("fk_db_schema_name", _TEXT),
    ("fk_table_name", _TEXT, False),
    ("fk_column_name", _TEXT, False),
    ("key_sequence", pa.int32(), False),
    ("fk_key_name", _TEXT),
    ("pk_key_name", _TEXT),
    ("update_rule", pa.uint8(), False),
    ("delete_rule", pa.uint8(), False),
)
_FOREIGN_KEYS = _schema(*_KEY_COLUMNS)

_TABLES = _schema(
    ("catalog_name", _TEXT),
    ("db_schema_name", _TEXT),
    ("table_name", _TEXT, False),
    ("table_type", _TEXT, False),
)

SCHEMAS: dict[type, pa.Schema] = {
    CommandGetSqlInfo: _schema(
        ("info_name", pa.uint32(), False),
        ("value", pa.dense_union([pa.field(name, kind) for name, kind in VALUES.items()])),
    ),
    CommandGetCatalogs: _schema(("catalog_name", _TEXT, False)),
    CommandGetDbSchemas: _schema(("catalog_name", _TEXT), ("db_schema_name", _TEXT, False)),
    CommandGetTables: _TABLES,
    CommandGetTableTypes: _schema(("table_type", _TEXT, False)),
    CommandGetPrimaryKeys: _schema(
        ("catalog_name", _TEXT),
        ("db_schema_name", _TEXT),
        ("table_name", _TEXT, False),
        ("column_name", _TEXT, False),
        ("key_name", _TEXT),
        ("key_sequence", pa.int32(), False),
    ),
    CommandGetExportedKeys: _FOREIGN_KEYS,
    CommandGetImportedKeys: _FOREIGN_KEYS,
    CommandGetCrossReference: _FOREIGN_KEYS,
    CommandGetXdbcTypeInfo: _schema(
        ("type_name", _TEXT, False),
        ("data_type", pa.int32(), False),
        ("column_size", pa.int32()),
        ("literal_prefix", _TEXT),
        ("literal_suffix", _TEXT),
        ("create_params", pa.list_(pa.field("item", _TEXT, False))),
        ("nullable", pa.int32(), False),
        ("case_sensitive", pa.bool_(), False),
        ("searchable", pa.int32(), False),
        ("unsigned_attribute", pa.bool_()),
        ("fixed_prec_scale", pa.bool_(), False),
        ("auto_increment", pa.bool_()),
        ("local_type_name", _TEXT),
        ("minimum_scale", pa.int32()),
        ("maximum_scale", pa.int32()),
        ("sql_data_type", pa.int32(), False),
        ("datetime_subcode", pa.int32()),
        ("num_prec_radix", pa.int32()),
        ("interval_precision", pa.int32()),
    ),
}
"""Of the answers to commands; that to CommandGetTables has one column more on request."""

_WITH_COLUMNS = _TABLES.append(pa.field("table_schema", pa.binary(), False))

TYPES = {
    "BOOLEAN": (-7, 1, None),
    "TINYINT": (-6, 8, 2),
    "SMALLINT": (5, 16, 2),
    "INTEGER": (4, 32, 2),
    "BIGINT": (-5, 64, 2),
    "FLOAT": (7, 24, 2),
    "DOUBLE": (8, 53, 2),
    "VARCHAR": (12, None, None),
    "BLOB": (-3, None, None),
    "DATE": (91, None, None),
    "TIME": (92, None, None),
    "TIMESTAMP": (93, None, None),
}
"""DuckDB's name, XDBC's number, digits and their base."""

FACTS: Mapping[int, tuple[str, Any]] = {
    0: ("string_value", "QK Atlas"),
    1: ("string_value", version_of("qkatlas")),
    2: ("string_value", pa.__version__),
    3: ("bool_value", True),  # reads only
    4: ("bool_value", True),  # takes SQL
    5: ("bool_value", False),  # no Substrait
    8: ("int32_bitmask", 0),  # no transactions
    9: ("bool_value", True),  # cancels queries
    100: ("int32_bitmask", int(IDLE_S * 1000)),  # of prepared statements
    101: ("int32_bitmask", 0),
    **dict.fromkeys((500, 501, 502), ("bool_value", False)),  # CREATE, DROP
    503: ("int32_bitmask", 1),  # names in any case
    504: ("string_value", '"'),
    505: ("int32_bitmask", 1),
    506: ("bool_value", True),  # all tables can be read
    507: ("int32_bitmask", 3),  # nulls come last
    **{number: ("string_list", []) for number in range(508, 513)},  # keywords, functions
    513: ("string_value", "\\"),  # escapes % and _ in patterns
    514: ("string_value", ""),
    515: ("bool_value", True),  # column aliases
    516: ("bool_value", True),  # null || text is null
    517: ("int32_to_int32_list_map", []),
    518: ("bool_value", True),  # table aliases
    519: ("bool_value", False),
    520: ("bool_value", True),  # ORDER BY expressions, and what is not selected
    521: ("bool_value", True),
    522: ("int32_bitmask", 3),  # GROUP BY, the same
    523: ("bool_value", True),  # LIKE … ESCAPE
    524: ("bool_value", False),
    525: ("int32_bitmask", 1),  # ODBC's smallest grammar
    526: ("int32_bitmask", 1),  # the entry level of SQL-92
    527: ("bool_value", False),
    528: ("int32_bitmask", 2),  # outer joins in full
    529: ("string_value", "schema"),
    530: ("string_value", "procedure"),
    531: ("string_value", "catalog"),
    532: ("bool_value", True),  # the catalog stands first
    533: ("int32_bitmask", 0),
    534: ("int32_bitmask", 0),
    535: ("int32_bitmask", 0),
    536: ("bool_value", False),
    537: ("bool_value", False),
    538: ("int32_bitmask", 15),  # subqueries everywhere
    539: ("bool_value", True),
    540: ("int32_bitmask", 3),  # UNION and UNION ALL
    **dict.fromkeys(range(541, 556), ("bigint_value", 0)),  # no limits, or not known
    556: ("bool_value", False),
    557: ("bigint_value", MAX_TEXT_BYTES),
    **dict.fromkeys(range(558, 562), ("bigint_value", 0)),
    562: ("int32_bitmask", 0),  # transactions again
    563: ("bool_value", False),
    564: ("int32_bitmask", 0),
    565: ("bool_value", False),
    566: ("bool_value", False),
}
"""Member of the union and value of every fact, by the numbers of the enumeration SqlInfo."""


def schema_of(command: object) -> pa.Schema | None:
    """The schema of a command's answer; None where it is not about the catalog."""
    if isinstance(command, CommandGetTables) and command.include_schema:
        return _WITH_COLUMNS
    return SCHEMAS.get(type(command))


def list_tables() -> dict[str, str]:
    """Every table and view that SQL sees, and which of the two it is."""
    names = sorted(entry["name"] for entry in discovery.describe())
    return {name: TABLE if name in TABLES else VIEW for name in names}


def answer(command: object, columns: Mapping[str, pa.Schema]) -> pa.Table:
    """The answer to a command about the catalog.

    Args:
        command: one that `schema_of` knows.
        columns: of the tables that `wanted_tables` gives; empty where no schemas are asked for.
    """
    rows: list[tuple[Any, ...]] = []
    if isinstance(command, CommandGetSqlInfo):
        return _answer_facts(command.info)
    if isinstance(command, CommandGetCatalogs):
        rows = [(CATALOG,)]
    elif isinstance(command, CommandGetDbSchemas):
        place = (command.catalog, command.db_schema_filter_pattern)
        rows = [(CATALOG, SCHEMA)] if _is_ours(*place) else []
    elif isinstance(command, CommandGetTableTypes):
        rows = [(TABLE,), (VIEW,)]
    elif isinstance(command, CommandGetXdbcTypeInfo):
        rows = [_type_row(name) for name in TYPES if command.data_type in (None, TYPES[name][0])]
    elif isinstance(command, CommandGetTables):
        rows = [
            (CATALOG, SCHEMA, name, kind, *_columns_of(name, columns))
            for name, kind in wanted_tables(command).items()
        ]
    schema = schema_of(command)
    assert schema is not None
    named = [dict(zip(schema.names, row, strict=True)) for row in rows]
    return pa.Table.from_pylist(named, schema)


def wanted_tables(command: CommandGetTables) -> dict[str, str]:
    """The tables that a command asks for, and their kinds."""
    if not _is_ours(command.catalog, command.db_schema_filter_pattern):
        return {}
    kinds = set(command.table_types) or {TABLE, VIEW}
    return {
        name: kind
        for name, kind in list_tables().items()
        if kind in kinds and _is_like(name, command.table_name_filter_pattern)
    }


def _columns_of(name: str, columns: Mapping[str, pa.Schema]) -> Iterable[bytes]:
    return (columns[name].serialize().to_pybytes(),) if columns else ()


def _is_ours(catalog: str | None, schema_pattern: str | None) -> bool:
    """True where a filter lets the only catalog and the only schema through."""
    return catalog in (None, CATALOG) and _is_like(SCHEMA, schema_pattern)


def _is_like(name: str, pattern: str | None) -> bool:
    """True where a name fits a pattern of LIKE, and where there is none.

    Raises:
        QueryError: the pattern is too long.
    """
    if pattern is None:
        return True
    if len(pattern) > LONGEST_PATTERN:
        raise QueryError(f"a pattern has {len(pattern):,} characters, at most {LONGEST_PATTERN}")
    parts = re.findall(r"\\.|%+|.", pattern, re.DOTALL)
    wild = {"%": ".*", "_": "."}
    expression = (wild.get(part[0], "") or re.escape(part[-1]) for part in parts)
    return re.fullmatch("".join(expression), name, re.DOTALL) is not None


def _type_row(name: str) -> tuple[Any, ...]:
    """A row of the answer to CommandGetXdbcTypeInfo."""
    number, digits, base = TYPES[name]
    quote = "'" if name in ("VARCHAR", "BLOB", "DATE", "TIME", "TIMESTAMP") else None
    signed = None if base is None else False
    nullable, searchable = 1, 3
    return (
        *(name, number, digits, quote, quote, None, nullable, name == "VARCHAR", searchable),
        *(signed, False, False, name, None, None, number, None, base, None),
    )


def _answer_facts(wanted: tuple[int, ...]) -> pa.Table:
    """The facts of these numbers that are known, or all."""
    found = [
        (number, *FACTS[number]) for number in dict.fromkeys(wanted) or FACTS if number in FACTS
    ]
    members: dict[str, list[Any]] = {name: [] for name in VALUES}
    types, offsets = [], []
    for _, member, value in found:
        types.append(list(VALUES).index(member))
        offsets.append(len(members[member]))
        members[member].append(value)
    union = pa.UnionArray.from_dense(
        pa.array(types, pa.int8()),
        pa.array(offsets, pa.int32()),
        [pa.array(members[name], kind) for name, kind in VALUES.items()],
        list(VALUES),
    )
    numbers = pa.array([number for number, *_ in found], pa.uint32())
    return pa.Table.from_arrays([numbers, union], schema=SCHEMAS[CommandGetSqlInfo])

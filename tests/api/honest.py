"""What researchers, notebooks, Mosaic and BI tools ask: statements that the gate must let through.

They hold for any atlas with the views of docs/tables.md, also for one without points or measures.
"""

RESEARCH = [
    "SELECT 1",
    "SELECT count(*) FROM tokens",
    "FROM models",
    "FROM tokens SELECT token, count(*) AS n GROUP BY token ORDER BY n DESC, token LIMIT 5",
    "TABLE heads",
    "SELECT DISTINCT token FROM tokens WHERE NOT is_special ORDER BY token LIMIT 20 OFFSET 2",
    "SELECT model, layer, head, scaling FROM heads WHERE mask = 'causal' ORDER BY ALL",
    "SELECT * EXCLUDE (offset_bias) FROM heads",
    "SELECT * REPLACE (scaling * 2 AS scaling) FROM heads",
    "SELECT * RENAME (head AS query_head) FROM heads",
    "SELECT COLUMNS('lay.*|head') FROM heads",
    "SELECT COLUMNS(c -> c LIKE '%head%') FROM heads",
    "SELECT min(COLUMNS(* EXCLUDE (image, labels))) FROM sequences",
    "SELECT main.tokens.token, memory.main.tokens.position FROM memory.main.tokens LIMIT 3",
    'SELECT "token" AS "the token" FROM "main"."tokens" AS "t" LIMIT 3',
    "SELECT sequence_id, list_dot_product(vector, vector) AS squared FROM queries LIMIT 4",
    "SELECT sqrt(list_sum(list_transform(vector, lambda x: x ** 2))) AS norm FROM keys LIMIT 3",
    "SELECT list_cosine_similarity(q.vector, k.vector) FROM queries q JOIN keys k "
    "USING (model, layer, sequence_id) WHERE q.head = 0 AND k.kv_head = 0 LIMIT 9",
    "SELECT q.position, arg_max(k.position, list_inner_product(q.vector, k.vector)) AS best "
    "FROM queries q JOIN keys k USING (model, layer, sequence_id) "
    "WHERE q.layer = 0 AND q.head = 1 AND k.kv_head = 0 GROUP BY q.sequence_id, q.position",
    "SELECT vector[1], vector[1:3], vector[-1], len(vector) FROM keys LIMIT 2",
    "SELECT array_distance(vector::FLOAT[8], vector::FLOAT[8]) FROM queries LIMIT 2",
    "SELECT unnest(vector) AS v, generate_subscripts(vector, 1) AS i FROM keys LIMIT 8",
    "SELECT position, list(token ORDER BY sequence_id) AS words FROM tokens GROUP BY position",
    "SELECT string_agg(token, ' ' ORDER BY position) FROM tokens GROUP BY sequence_id",
    "SELECT count(*) FILTER (WHERE is_special) AS special, count(*) FROM tokens",
    "SELECT model, layer, head, count(*) FROM queries GROUP BY ALL ORDER BY ALL",
    "SELECT layer, head, count(*) FROM queries GROUP BY ROLLUP (layer, head)",
    "SELECT layer, grouping(layer), count(*) FROM keys GROUP BY GROUPING SETS ((layer), ())",
    "SELECT layer, kv_head, avg(value_norm) FROM keys GROUP BY CUBE (layer, kv_head)",
    "SELECT corpus, sum(n_tokens) AS n FROM sequences GROUP BY 1 HAVING sum(n_tokens) > 1",
    "SELECT text, length(text), upper(text), text.upper().lower() FROM sequences LIMIT 2",
    "SELECT labels['class'], map_keys(labels), cardinality(labels) FROM sequences LIMIT 2",
    "SELECT s.corpus, t.token FROM sequences s LEFT JOIN tokens t USING (sequence_id) LIMIT 3",
    "SELECT * FROM tokens NATURAL JOIN sequences LIMIT 1",
    "SELECT count(*) FROM sequences SEMI JOIN tokens USING (sequence_id)",
    "SELECT count(*) FROM sequences ANTI JOIN rejects USING (source)",
    "SELECT count(*) FROM heads a FULL OUTER JOIN measures b USING (model, layer, head)",
    "SELECT * FROM heads, LATERAL (SELECT head + layer AS both) LIMIT 2",
    "SELECT t.token, x.i FROM tokens t, LATERAL unnest([1, 2]) AS x(i) LIMIT 4",
    "SELECT a.position, b.position FROM tokens a ASOF JOIN tokens b "
    "ON a.sequence_id = b.sequence_id AND a.position >= b.position LIMIT 3",
    "SELECT * FROM models POSITIONAL JOIN heads LIMIT 3",
    "SELECT head FROM heads UNION SELECT layer FROM heads EXCEPT SELECT 7 ORDER BY 1",
    "SELECT head FROM heads INTERSECT ALL SELECT layer FROM heads",
    "SELECT head AS a FROM heads UNION ALL BY NAME SELECT layer AS b FROM heads LIMIT 3",
    "(SELECT head FROM heads LIMIT 1) UNION ALL (SELECT layer FROM heads ORDER BY 1 LIMIT 1)",
    "SELECT token FROM tokens WHERE sequence_id IN (SELECT sequence_id FROM sequences) LIMIT 1",
    "SELECT EXISTS (SELECT 1 FROM rejects), (SELECT max(position) FROM tokens)",
    "SELECT position > ALL (SELECT head FROM heads) FROM tokens LIMIT 1",
    "SELECT ARRAY(SELECT head FROM heads ORDER BY head)",
    "SELECT CASE WHEN is_special THEN 'special' ELSE token END FROM tokens LIMIT 3",
    "SELECT position BETWEEN 1 AND 3, token IS NULL, label IS NOT DISTINCT FROM token FROM tokens",
    "SELECT layer FROM heads LIMIT 50%",
    "SELECT head FROM heads ORDER BY soft_cap DESC NULLS LAST, head LIMIT (SELECT 3)",
    "SELECT DISTINCT ON (sequence_id) token FROM tokens ORDER BY sequence_id, position DESC",
    "SELECT token FROM tokens ORDER BY token COLLATE NOCASE LIMIT 3",
    "SELECT status, n_tokens FROM shards ORDER BY generation DESC",
    "SELECT map_id, method, dims FROM current_maps ORDER BY score_spearman",
    "SELECT x, y, kind, rank FROM points WHERE rank < 2000 ORDER BY rank",
    "SELECT * FROM head_measures ORDER BY model, layer, head",
    "SELECT kind, count(*) FROM vectors GROUP BY kind",
    "SELECT x: 1, y: token FROM tokens LIMIT 1",
    "SELECT t FROM tokens t LIMIT 1",
    "SELECT head AS h, h + 1 AS next FROM heads WHERE h > 0",
    "select Token from TOKENS where POSITION = 0 -- a comment; with 'a quote",
    "/* two\n lines */ SELECT /* /* nested */ */ 'it''s', \"position\" FROM tokens LIMIT 1;",
    "SELECT $$a (bracket$$, $tag$ and 'quotes' $tag$, e'tab\\t', 'C:\\', '(((', chr(65)",
    "SELECT 'COPY t TO ''x.csv''', 'DROP TABLE tokens; --', '/etc/passwd' AS path",
]

WINDOWS = [
    "SELECT token, row_number() OVER (PARTITION BY sequence_id ORDER BY position) FROM tokens",
    "SELECT rank() OVER w, dense_rank() OVER w, percent_rank() OVER w, cume_dist() OVER w, "
    "ntile(2) OVER w FROM tokens WINDOW w AS (PARTITION BY sequence_id ORDER BY position)",
    "SELECT lag(token, 1, 'none') OVER w, lead(token) OVER w, first_value(token) OVER w, "
    "last_value(token) OVER w, nth_value(token, 2) OVER w FROM tokens "
    "WINDOW w AS (PARTITION BY sequence_id ORDER BY position)",
    "SELECT avg(value_norm) OVER (PARTITION BY layer ORDER BY position "
    "ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING EXCLUDE CURRENT ROW) FROM keys",
    "SELECT sum(position) OVER (ORDER BY position RANGE BETWEEN 1 PRECEDING AND CURRENT ROW), "
    "first_value(label IGNORE NULLS) OVER (ORDER BY position) FROM tokens",
    "SELECT count(DISTINCT token) FILTER (position > 0) OVER (PARTITION BY sequence_id) "
    "FROM tokens",
    "SELECT list(token ORDER BY position DESC) OVER (PARTITION BY sequence_id) FROM tokens",
    "SELECT * FROM tokens QUALIFY row_number() OVER (PARTITION BY token ORDER BY position) = 1",
]

COMMON_TABLES = [
    "WITH t AS (SELECT * FROM tokens), n AS (SELECT count(*) AS n FROM t) FROM t, n LIMIT 2",
    "WITH norms AS MATERIALIZED (SELECT layer, value_norm FROM keys) FROM norms LIMIT 1",
    "WITH tokens AS (SELECT * FROM tokens WHERE position > 0) SELECT count(*) FROM tokens",
    "WITH query AS (SELECT 1 AS a), summary AS (FROM query) FROM summary",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) FROM r",
    "WITH RECURSIVE r(k, n) USING KEY (k) AS (SELECT 1, 1 UNION SELECT k, n + 1 FROM r "
    "WHERE n < 5) FROM r",
    "SELECT (WITH a AS (SELECT 1 AS x) SELECT x FROM a) + 1",
]

MOSAIC = [
    "DESCRIBE SELECT x, y FROM points",
    'SELECT "x"::FLOAT AS "x", "y"::FLOAT AS "y" FROM "points" WHERE ("rank" < 4000)',
    'SELECT min("x") AS "min", max("x") AS "max" FROM "points"',
    'SELECT count(*)::INTEGER AS "count", count(DISTINCT "kind") AS "distinct" FROM "points"',
    'SELECT "x1", "x2", count(*) AS "y" FROM (SELECT 0 + 1 * FLOOR("x" / 1::DOUBLE) AS "x1", '
    '0 + 1 * (1 + FLOOR("x" / 1::DOUBLE)) AS "x2" FROM "points") GROUP BY "x1", "x2"',
    'SELECT "kind", regr_slope("y", "x"), regr_intercept("y", "x"), regr_count("y", "x"), '
    'regr_r2("y", "x"), regr_sxx("y", "x"), corr("y", "x") FROM "points" GROUP BY "kind"',
    "SELECT MEDIAN(value_norm), QUANTILE(value_norm, 0.25), quantile_cont(value_norm, [0.1, 0.9]), "
    "approx_quantile(value_norm, 0.5), mad(value_norm), mode(value_norm) FROM keys",
    "SELECT time_bucket(INTERVAL '1 day', TIMESTAMP '2026-01-05 12:00') AS day, "
    "epoch_ms(TIMESTAMP '2026-01-05'), date_trunc('month', DATE '2026-01-05')",
    'SELECT "x", "y" FROM "points" USING SAMPLE 1000 ROWS',
    "SELECT x, y FROM points TABLESAMPLE reservoir(10 ROWS) REPEATABLE (3)",
    "SELECT count(*) FROM points USING SAMPLE 10% (bernoulli)",
    "SELECT stddev(x), var_pop(y), skewness(x), kurtosis(y), histogram(kind) FROM points",
    'SELECT GREATEST(LEAST("x", 1), 0) AS v, "kind" IN (\'query\', \'key\') AS side FROM "points"',
]

SHAPES = [
    "PIVOT tokens ON is_special IN (true, false) USING count(*) GROUP BY sequence_id",
    "FROM (PIVOT heads ON layer IN (0, 1) USING avg(scaling) AS mean GROUP BY head)",
    "SELECT * FROM heads PIVOT (sum(scaling) FOR layer IN (0, 1) GROUP BY head)",
    "UNPIVOT (SELECT layer, head, kv_head FROM heads) ON head, kv_head INTO NAME side VALUE i",
    "FROM heads UNPIVOT INCLUDE NULLS (v FOR n IN (soft_cap, sink))",
    "VALUES (1, 'a'), (2, 'b')",
    "SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS v(i, name)",
    "SELECT * FROM range(3) AS r(i), generate_series(1, 2) AS s(j)",
    "SELECT * FROM unnest([10, 20]) WITH ORDINALITY AS u(value, i)",
    "SELECT list_filter([1, 2, 3], x -> x > 1), list_reduce([1, 2], lambda a, b: a + b), "
    "[x * 2 FOR x IN [1, 2] IF x > 1], list_aggregate([1, 2], 'avg'), flatten([[1], [2]])",
    "SELECT {'a': 1, 'b': [1, 2]}.b[1], struct_pack(a := 1).a, row(1, 2), (3, 4)",
    "SELECT MAP {'a': 1}['a'], map_from_entries([('k', 1)]), MAP(['x'], [2])",
    "SELECT unnest({'a': 1, 'b': {'c': 2}}, recursive := true)",
    "SELECT map_id, CASE WHEN json_valid(parameters) THEN parameters ->> '$.seed' END FROM maps",
    "SELECT '{\"a\": [1, 2]}'::JSON -> '$.a[0]', json_extract('{\"a\": 1}', '$.a'), "
    "to_json({'a': 1}), json_array_length('[1]'), from_json('{\"a\": 1}', '{\"a\": \"INTEGER\"}')",
    "SELECT * FROM json_each('{\"a\": 1}')",
    "SELECT json_group_array(head) FROM heads",
    "SELECT '1.5'::DECIMAL(4, 2), CAST('7' AS BIGINT), TRY_CAST('x' AS INTEGER), 1::VARCHAR(3), "
    "'b'::ENUM('a', 'b'), [1]::FLOAT[1], {'x': 1}::STRUCT(x BIGINT), 'a'::BLOB, NULL::DATE",
    "SELECT TRY('x'::INTEGER), coalesce(NULL, 1), nullif(1, 1), ifnull(NULL, 2), if(true, 1, 2)",
    "SELECT regexp_extract('a1', '[0-9]'), regexp_replace('aa', 'a', 'b', 'g'), 'a' ~ '.', "
    "'ab' SIMILAR TO 'a.', 'Ab' ILIKE 'a%', 'ab' GLOB 'a*', split_part('a b', ' ', 2), "
    "levenshtein('a', 'b'), substring('abc' FROM 2 FOR 1), position('b' IN 'abc'), "
    "trim(BOTH 'x' FROM 'xax'), format('{}-{}', 1, 2), strftime(DATE '2026-01-05', '%Y')",
    "SELECT extract(year FROM DATE '2026-01-05') + 7 // 2 % 3, 2 ** 3, ~1, 5 & 3, 1 << 2, -1, 5!",
    "SELECT current_date > DATE '2020-01-01', now() IS NOT NULL, current_schema(), version()",
]

EXPLAINING = [
    "DESCRIBE tokens",
    "DESC heads",
    "SHOW TABLES",
    "SELECT name FROM (SHOW TABLES)",
    "SELECT column_name FROM (DESCRIBE main.tokens)",
    "SUMMARIZE heads",
    "SUMMARIZE SELECT layer, head FROM heads",
    "EXPLAIN SELECT count(*) FROM tokens",
    "explain -- how\n SELECT token FROM tokens WHERE position = 1",
    "EXPLAIN WITH t AS (FROM tokens) FROM t",
    "EXPLAIN PIVOT tokens ON is_special IN (true, false) USING count(*)",
]

HONEST: list[str] = [*RESEARCH, *WINDOWS, *COMMON_TABLES, *MOSAIC, *SHAPES, *EXPLAINING]

WITH_PARAMETERS: list[tuple[str, list[object] | dict[str, object]]] = [
    ("SELECT token FROM tokens WHERE position = ? AND is_special = ?", [0, True]),
    ("SELECT token FROM tokens WHERE position = $1 OR position = $2", [0, 1]),
    ("SELECT token FROM tokens WHERE position < $most LIMIT $n", {"most": 3, "n": 2}),
    ("SELECT token FROM tokens WHERE position IN (SELECT unnest($at))", {"at": [0, 1]}),
    ("SELECT $text", {"text": "'; DROP TABLE tokens; --"}),
]

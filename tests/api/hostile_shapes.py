"""Hostile texts by their shape rather than their words: several statements, sizes, endless work."""

FILE = "qkatlas-hostile"
NBSP, BOM, WIDE = "\u00a0", "\ufeff", "\u3000"

SEVERAL = {
    "two": "SELECT 1; SELECT 2",
    "delete second": "SELECT 1; DELETE FROM ledger.heads",
    "copy second": f"SELECT 1;COPY (SELECT 1) TO '{FILE}.csv'",
    "behind a comment": "SELECT 1 --\n; DROP VIEW tokens",
    "behind a block comment": "SELECT 1 /* ; */ ; DROP VIEW tokens",
    "behind nested comments": "SELECT 1 /* /* */ */; DROP VIEW tokens",
    "behind carriage return": "SELECT 1 -- x\r; DROP VIEW tokens",
    "behind a dollar quote": "SELECT $$;$$; DROP VIEW tokens",
    "behind a tagged quote": "SELECT $a$ $b$ $a$; DROP VIEW tokens --$b$",
    "behind an escape": "SELECT e'\\''; DROP VIEW tokens --'",
    "behind a plain backslash": "SELECT '\\'; DROP VIEW tokens --'",
    "behind a name": 'SELECT 1 AS "--"; DROP VIEW tokens',
    "byte order mark": f"{BOM}DROP VIEW tokens",
    "byte order mark inside": f"SELECT 1;{BOM}DROP VIEW tokens",
    "non-breaking space": f"SELECT 1;{NBSP}DROP{NBSP}VIEW{NBSP}tokens",
    "wide space": f"COPY{WIDE}tokens{WIDE}TO{WIDE}'{FILE}.csv'",
    "other semicolon": "SELECT 1\uff1b DROP VIEW tokens",
    "zero byte": "SELECT 1\0; DROP VIEW tokens",
    "zero byte in quotes": "SELECT * FROM 'x\0.csv'",
    "half a character": "SELECT '\ud800'",
    "no space": "SELECT 1;;DROP VIEW tokens;;",
    "transaction": "BEGIN; DELETE FROM ledger.heads; COMMIT",
    "open quote": "SELECT 'x; DROP VIEW tokens",
    "open name": 'SELECT "x; DROP VIEW tokens',
    "open comment": "SELECT 1 /* ; DROP VIEW tokens",
    "open dollar quote": "SELECT $a$ ; DROP VIEW tokens $b$",
}

SIZES = {
    "text": "SELECT '" + "x" * 70_000 + "'",
    "comment": "SELECT 1 --" + "x" * 70_000,
    "wide letters": "SELECT '" + "\u3042" * 22_000 + "'",
    "spaces": "SELECT 1" + " " * 70_000,
    "name": "SELECT " + "a" * 70_000,
    "list": "SELECT 1 IN (" + "1," * 40_000 + "1)",
    "semicolons": ";" * 70_000,
    "brackets": "SELECT " + "(" * 5_000 + "1" + ")" * 5_000,
    "open brackets": "SELECT " + "(" * 60_000,
    "list brackets": "SELECT " + "[" * 101 + "]" * 101,
    "braces": "SELECT " + "{'a': " * 101 + "1" + "}" * 101,
    "brackets behind quotes": "SELECT '(' || e'\\'' || " + "(" * 200 + "1" + ")" * 200,
    "brackets behind a comment": "SELECT /* /* */ ' */ " + "(" * 200 + "1" + ")" * 200,
    "subqueries": "SELECT " + "(SELECT " * 150 + "1" + ")" * 150,
    "not": "SELECT " + "NOT " * 15_000 + "true",
    "plus": "SELECT 1" + "+1" * 20_000,
    "minus": "SELECT " + "- " * 20_000 + "1",
    "casts": "SELECT 1" + "::INTEGER" * 6_000,
    "steps": "SELECT a" + "[1]" * 5_000,
    "arrows": "SELECT '{}'" + "->'a'" * 5_000,
    "cases": "SELECT " + "CASE WHEN true THEN " * 2_500 + "1" + " END" * 2_500,
    "joins": "FROM heads" + ", heads" * 8_000,
    "list types": "SELECT NULL::INTEGER" + "[]" * 20_000,
    "functions": "SELECT " + "abs(" * 101 + "1" + ")" * 101,
    "comments": "SELECT 1 " + "/*" * 20_000,
    "quotes": "SELECT " + "e'\\'" * 10_000,
    "mixed parameters": "SELECT ?, $1, $name",
}

LOADS: dict[str, str] = {
    "repeat": "SELECT length(repeat('x', 4000000000))",
    "repeat twice": "SELECT length(repeat(repeat('x', 1000000), 4000))",
    "levenshtein": "SELECT levenshtein(repeat('a', 300000), repeat('b', 300000))",
    "cross joins": "SELECT count(*) FROM range(10000) a, range(10000) b, range(10000) c, "
    "range(10000) d WHERE hash(a.range, d.range) % 7 = 1",
    "cross join of series": "SELECT sum(a.i * b.i) FROM range(10000000) a(i), range(10000000) b(i)",
    "endless recursion": "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) "
    "SELECT max(n) FROM r",
    "doubling recursion": "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n FROM r, range(2)) "
    "SELECT count(*) FROM r",
    "growing text": "WITH RECURSIVE r(s) AS (SELECT 'xx' UNION ALL SELECT s || s FROM r) "
    "SELECT max(length(s)) FROM r",
    "series": "SELECT count(*) FROM generate_series(1, 1000000000000)",
    "list of a series": "SELECT len(generate_series(1, 4000000000))",
    "list growth": "SELECT len(list(i)) FROM range(100000000000) r(i)",
    "nested lists": "SELECT len(list_transform(range(100000), lambda x: range(100000)))",
    "sort": "SELECT i FROM range(10000000000) r(i) ORDER BY hash(i) LIMIT 1 OFFSET 5000000000",
    "groups": "SELECT count(*) FROM (SELECT hash(i) FROM range(10000000000) r(i) GROUP BY ALL)",
    "long text": "SELECT length(string_agg(md5(i::VARCHAR), ',')) FROM range(10000000000) r(i)",
    "pad": "SELECT length(lpad('x', 2000000000, 'y'))",
    "window": "SELECT max(s) FROM (SELECT sum(i) OVER (ORDER BY hash(i)) AS s "
    "FROM range(10000000000) r(i))",
    "brackets": "SELECT " + "(" * 100 + "1" + ")" * 100 + ", count(*) FROM range(1000000000000)",
    "sum over pairs": "SELECT sum((i * 31 + j) % 7) FROM range(1000000000) a(i), "
    "range(1000000000) b(j)",
}

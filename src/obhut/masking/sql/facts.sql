-- nulls: share of NULL in a column
SELECT coalesce(count(*) FILTER (WHERE {c} IS NULL)::float8 / nullif(count(*), 0), 0) FROM {t}

-- quantiles: 1001 quantiles of a number or date, as text; the outermost hundredth on each side stays away: its values are single people's
SELECT array(SELECT q::text FROM unnest((SELECT percentile_disc(array(SELECT 0.01 + n * 0.98 / 1000 FROM generate_series(0, 1000) n))
                                         WITHIN GROUP (ORDER BY {c}) FROM {t})) q WHERE q IS NOT NULL)

-- classes: values that at least k rows share, with their numbers of rows
SELECT {c}::text, count(*) FROM {t} GROUP BY 1 HAVING count(*) >= {k} ORDER BY 2 DESC, 1 LIMIT 10000

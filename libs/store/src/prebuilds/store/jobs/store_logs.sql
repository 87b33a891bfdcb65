-- Store lines of a job's log; what was stored before stays as it is.
INSERT INTO job_logs (job_id, attempt, sequence, logged_at, level, stage, line)
SELECT %(job_id)s, %(attempt)s, l.sequence, l.logged_at, l.level, l.stage, l.line
FROM unnest(
    %(sequences)s::bigint[], %(times)s::timestamptz[], %(levels)s::text[], %(stages)s::text[], %(lines)s::text[]
) AS l (sequence, logged_at, level, stage, line)
ON CONFLICT (job_id, attempt, sequence) DO NOTHING

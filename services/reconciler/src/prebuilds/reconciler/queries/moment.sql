-- The moment of this transaction, a moment after its snapshot was taken, the gateways that are live, and whether the whole deployment is paused.
SELECT
    now() AS at,
    clock_timestamp() AS seen_at,
    coalesce(array_agg(g.id), '{}') AS live_gateways,
    EXISTS (SELECT FROM settings AS s WHERE s.key = 'reconciliation_pause') AS is_paused
FROM gateways AS g
WHERE g.seen_at > now() - interval '60 s'

-- The moment of this transaction, the gateways that are live at it, and whether the whole deployment is paused.
SELECT
    now() AS at,
    coalesce(array_agg(g.id), '{}') AS live_gateways,
    EXISTS (SELECT FROM settings AS s WHERE s.key = 'reconciliation_pause') AS is_paused
FROM gateways AS g
WHERE g.seen_at > now() - interval '60 s'

-- The moment of this transaction, a moment after its snapshot was taken, and whether the whole deployment is paused.
SELECT
    now() AS at,
    clock_timestamp() AS seen_at,
    EXISTS (SELECT FROM settings AS s WHERE s.key = 'reconciliation_pause') AS is_paused

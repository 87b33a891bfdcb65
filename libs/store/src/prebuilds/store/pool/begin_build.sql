-- Move a locked pool row to what it is while a person's stop or start build of it is unfinished: not ready, and after a start without the agents that were attached.
UPDATE prebuilds
SET state = CASE %(transition)s WHEN 'start' THEN 'starting' ELSE 'stopping' END,
    ready_at = NULL,
    failure_class = NULL,
    gateways = CASE %(transition)s WHEN 'start' THEN NULL ELSE gateways END,
    disconnected_at = CASE %(transition)s WHEN 'start' THEN clock_timestamp() ELSE disconnected_at END
WHERE workspace_id = %(workspace_id)s

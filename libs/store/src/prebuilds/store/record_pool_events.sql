-- Append to the history of pools, one event of each position of the arrays.
INSERT INTO pool_events (
    organization_id, template_id, preset_name, kind, reason, failure_class, workspace_id, user_id
)
SELECT
    event.organization_id, event.template_id, event.preset_name, event.kind, event.reason, event.failure_class,
    event.workspace_id, event.user_id
FROM unnest(
    %(organization_ids)s::uuid[],
    %(template_ids)s::uuid[],
    %(preset_names)s::text[],
    %(kinds)s::text[],
    %(reasons)s::text[],
    %(failure_classes)s::text[],
    %(workspace_ids)s::uuid[],
    %(user_ids)s::uuid[]
) AS event (organization_id, template_id, preset_name, kind, reason, failure_class, workspace_id, user_id)
